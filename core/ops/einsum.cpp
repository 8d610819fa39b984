// einsum: sums of products over labelled dims, lowered to permute, reshape, matmul and sum.
//
// Every operand becomes a tensor with a label for each dim: diagonals are taken, and "..." gets labels of its own. From left to
// right two operands are then made one. A label of both that is still needed is a batch dim; one that isn't is summed by the
// product; one of a single operand that isn't needed is summed before. So each step is
//   [batch.., left.., summed..] x [batch.., summed.., right..] = [batch.., left.., right..]
#include <array>
#include <string>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

/// Letters are themselves; the dims of "..." count from kEllipsis, the last of them first.
using Label = int;
using Labels = std::vector<Label>;
constexpr Label kEllipsis = 256;

bool has(const Labels& labels, Label label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }
int position(const Labels& labels, Label label) {
  return static_cast<int>(std::find(labels.begin(), labels.end(), label) - labels.begin());
}

struct Labelled {
  Tensor tensor;
  Labels labels;
};

class Einsum {
 public:
  Einsum(std::string_view equation, const Tensors& operands, Where where) : equation_(equation), where_(where) {
    parse(operands);
    for (size_t i = 0; i < operands.size(); ++i) check_extents(i, operands);
    for (size_t i = 0; i < operands.size(); ++i) terms_.push_back(take_diagonals({operands[i], inputs_[i]}));
  }

  Tensor run() {
    Labelled result = terms_[0];
    for (size_t next = 1; next < terms_.size(); ++next) {
      Labels needed = output_;
      for (size_t i = next + 1; i < terms_.size(); ++i)
        needed.insert(needed.end(), terms_[i].labels.begin(), terms_[i].labels.end());
      result = multiply(result, terms_[next], needed);
    }
    return arrange(sum_others(result, output_), output_).tensor;
  }

 private:
  template <class E = ValueError, class... Parts> [[noreturn]] void fail(const Parts&... parts) const {
    throw E(detail::str("einsum: ", parts...), user_line(where_));
  }
  /// An error with the equation below it and a caret under the character concerned.
  template <class... Parts> [[noreturn]] void fail_at(size_t at, const Parts&... parts) const {
    fail(parts..., "\n    ", equation_, "\n    ", std::string(at, ' '), "^");
  }
  static std::string name_of(Label label) {
    return label >= kEllipsis ? "..." : detail::str("'", static_cast<char>(label), "'");
  }

  void parse(const Tensors& operands) {
    std::vector<Labels> terms(1);
    std::vector<size_t> begins(1, 0);  // of each term, for carets
    std::vector<bool> open(1, false);  // has "..."
    bool arrow = false;
    std::array<size_t, 256> seen{};  // where a label first occurs, counted from 1
    for (size_t i = 0; i < equation_.size(); ++i) {
      const char c = equation_[i];
      if (c == ' ') continue;
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        if (arrow && !seen[static_cast<size_t>(c)]) fail_at(i, "the result's label '", c, "' is in no operand");
        if (arrow && has(terms.back(), c)) fail_at(i, "the result has the label '", c, "' twice");
        if (!arrow && !seen[static_cast<size_t>(c)]) seen[static_cast<size_t>(c)] = i + 1;
        terms.back().push_back(c);
      } else if (c == '.' && equation_.substr(i, 3) == "...") {
        if (open.back()) fail_at(i, "a second \"...\" in one operand");
        open.back() = true;
        terms.back().push_back(kEllipsis);
        i += 2;
      } else if (c == ',' && !arrow) {
        terms.emplace_back(), begins.push_back(i + 1), open.push_back(false);
      } else if (c == '-' && equation_.substr(i, 2) == "->" && !arrow) {
        arrow = true;
        terms.emplace_back(), begins.push_back(i + 2), open.push_back(false);
        ++i;
      } else {
        fail_at(i, "unexpected '", c, "'; an equation has letters, \"...\", commas and one \"->\"");
      }
    }
    const size_t count = terms.size() - (arrow ? 1 : 0);
    if (count != operands.size())
      fail("\"", equation_, "\" is of ", count, count == 1 ? " operand" : " operands", ", got ", operands.size());
    for (size_t i = 0; i < count; ++i) {
      if (!operands[i].defined()) fail<UndefinedError>("operand ", i, " is undefined");
      const int rank = operands[i].rank(), named = static_cast<int>(terms[i].size()) - (open[i] ? 1 : 0);
      if (open[i] ? rank < named : rank != named)
        fail_at(begins[i], "operand ", i, " ", operands[i].shape(), " has ", rank, " dims, its labels are ", named,
                open[i] ? " and \"...\"" : "");
      ellipsis_ = std::max(ellipsis_, open[i] ? rank - named : 0);
      inputs_.push_back(spelled_out(terms[i], rank - named));
    }
    if (arrow) {
      if (!open.back() && ellipsis_ > 0) {
        // As NumPy: what "..." stands for is not summed silently.
        fail_at(begins.back(), "operands have \"...\", the result must have it too");
      }
      output_ = spelled_out(terms.back(), ellipsis_);
      return;
    }
    output_ = spelled_out({kEllipsis}, ellipsis_);
    for (Label label = 'A'; label <= 'z'; ++label) {
      int64_t uses = 0;
      for (const Labels& labels : inputs_) uses += std::count(labels.begin(), labels.end(), label);
      if (uses == 1) output_.push_back(label);
    }
  }

  static Labels spelled_out(const Labels& labels, int ellipsis) {
    Labels result;
    for (Label label : labels) {
      if (label != kEllipsis) result.push_back(label);
      else
        for (int i = ellipsis - 1; i >= 0; --i) result.push_back(kEllipsis + i);
    }
    return result;
  }

  /// Dims of one label have one extent, or 1 (which repeats).
  void check_extents(size_t i, const Tensors& operands) const {
    for (size_t d = 0; d < inputs_[i].size(); ++d) {
      const int64_t extent = operands[i].shape()[static_cast<int>(d)];
      for (size_t j = 0; j <= i; ++j) {
        for (size_t e = 0; e < (j == i ? d : inputs_[j].size()); ++e) {
          const int64_t other = operands[j].shape()[static_cast<int>(e)];
          if (inputs_[j][e] != inputs_[i][d] || other == extent || (j != i && (other == 1 || extent == 1))) continue;
          fail<ShapeError>("label ", name_of(inputs_[i][d]), " of \"", equation_, "\" is ", other, " in operand ", j,
                           " ", operands[j].shape(), " and ", extent, " in operand ", i, " ", operands[i].shape());
        }
      }
    }
  }

  static Labelled take_diagonals(Labelled x) {
    for (size_t d = 0; d < x.labels.size(); ++d) {
      for (size_t e = d + 1; e < x.labels.size();) {
        if (x.labels[e] != x.labels[d]) {
          ++e;
          continue;
        }
        const Label label = x.labels[d];
        x.tensor = diagonal(x.tensor, 0, static_cast<int64_t>(d), static_cast<int64_t>(e));
        x.labels.erase(x.labels.begin() + static_cast<std::ptrdiff_t>(e));
        x.labels.erase(x.labels.begin() + static_cast<std::ptrdiff_t>(d));
        x.labels.push_back(label);
        e = d + 1;
      }
    }
    return x;
  }

  /// Sums over the labels that aren't wanted.
  static Labelled sum_others(const Labelled& x, const Labels& wanted) {
    Dims dims;
    Labelled result;
    for (size_t d = 0; d < x.labels.size(); ++d) {
      if (has(wanted, x.labels[d])) result.labels.push_back(x.labels[d]);
      else dims.push_back(static_cast<int64_t>(d));
    }
    result.tensor = dims.empty() ? x.tensor : to(sum(x.tensor, dims), x.tensor.dtype());
    return result;
  }

  /// The dims in the order of `order`, with a dim of one element where x lacks a label.
  static Labelled arrange(const Labelled& x, const Labels& order) {
    Tensor tensor = x.tensor;
    Labels labels = x.labels;
    for (Label label : order) {
      if (has(labels, label)) continue;
      tensor = unsqueeze(tensor, -1);
      labels.push_back(label);
    }
    Dims dims;
    bool moves = false;
    for (size_t i = 0; i < order.size(); ++i) {
      dims.push_back(position(labels, order[i]));
      moves |= dims.back() != static_cast<int64_t>(i);
    }
    return {moves ? permute(tensor, dims) : tensor, order};
  }

  static int64_t extent(const Labelled& x, Label label) { return x.tensor.shape()[position(x.labels, label)]; }

  static Labelled multiply(Labelled a, Labelled b, const Labels& needed) {
    Labels wanted_of_a = needed, wanted_of_b = needed;
    for (Label label : a.labels) {
      if (has(needed, label) || !has(b.labels, label)) continue;
      // A dim of one element has nothing to be multiplied with in step: the other side is summed first, this one loses it.
      if (extent(a, label) != extent(b, label)) continue;
      wanted_of_a.push_back(label), wanted_of_b.push_back(label);
    }
    a = sum_others(a, wanted_of_a);
    b = sum_others(b, wanted_of_b);

    Labels batch, left, right, summed;
    for (Label label : a.labels) {
      if (!has(needed, label)) summed.push_back(label);
      else (has(b.labels, label) ? batch : left).push_back(label);
    }
    for (Label label : b.labels)
      if (has(needed, label) && !has(batch, label)) right.push_back(label);
    Labels made = batch;
    made.insert(made.end(), left.begin(), left.end());
    made.insert(made.end(), right.begin(), right.end());
    if (summed.empty()) return {arrange(a, made).tensor * arrange(b, made).tensor, made};

    Labels order_a = batch, order_b = batch;
    order_a.insert(order_a.end(), left.begin(), left.end());
    order_a.insert(order_a.end(), summed.begin(), summed.end());
    order_b.insert(order_b.end(), summed.begin(), summed.end());
    order_b.insert(order_b.end(), right.begin(), right.end());
    a = arrange(a, order_a);
    b = arrange(b, order_b);
    // Batch dims stay as they are, so that no copy is needed; where there are too many, they are joined.
    const auto matrices = [&](const Labelled& x, size_t rows, size_t columns) {
      Shape shape;
      const size_t joined = batch.size() + 2 > static_cast<size_t>(kMaxRank) ? batch.size() : 0;
      int d = 0;
      const auto join = [&](size_t dims) {
        int64_t extent = 1;
        for (size_t i = 0; i < dims; ++i) extent *= x.tensor.shape()[d++];
        shape.push_back(extent);
      };
      if (joined) join(joined);
      else
        for (size_t i = 0; i < batch.size(); ++i) join(1);
      join(rows), join(columns);
      return reshape(x.tensor, shape);
    };
    if (batch.size() + 2 > static_cast<size_t>(kMaxRank)) {  // joined dims can't broadcast
      Shape shape_a = a.tensor.shape(), shape_b = b.tensor.shape();
      for (size_t i = 0; i < batch.size(); ++i) {
        const int d = static_cast<int>(i);
        shape_a[d] = shape_b[d] = std::max(shape_a[d], shape_b[d]);
      }
      a.tensor = expand(a.tensor, shape_a);
      b.tensor = expand(b.tensor, shape_b);
    }
    const Tensor product = matmul(matrices(a, left.size(), summed.size()), matrices(b, summed.size(), right.size()));
    Shape shape;
    for (size_t i = 0; i < batch.size(); ++i)
      shape.push_back(std::max(a.tensor.shape()[static_cast<int>(i)], b.tensor.shape()[static_cast<int>(i)]));
    for (Label label : left) shape.push_back(extent(a, label));
    for (Label label : right) shape.push_back(extent(b, label));
    return {reshape(product, shape), made};
  }

  std::string_view equation_;
  Where where_;
  std::vector<Labels> inputs_;
  Labels output_;
  int ellipsis_ = 0;
  std::vector<Labelled> terms_;
};

}  // namespace

Tensor einsum(std::string_view equation, const Tensors& operands, Where where) {
  const CallScope scope("einsum", where);
  return Einsum(equation, operands, where).run();
}

}  // namespace tandem
