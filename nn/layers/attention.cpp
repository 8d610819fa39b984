// MultiheadAttention: several attentions over one sequence, or from one to another, side by side.
#include "nn/layers/attention.h"

#include "core/ops/ops.h"

namespace tandem::nn {

using tandem::detail::str;

namespace {

constexpr const char* kName = "nn::MultiheadAttention";

void check_options(int64_t width, int64_t heads, const MultiheadAttentionOptions& options, Where where) {
  if (heads < 1 || width < 1 || width % heads != 0)
    throw ValueError(
        str(kName, ": a width of ", width, " can't be shared by ", heads, " heads; it must be a multiple of them"),
        where);
  if (options.kv_heads < 0 || (options.kv_heads > 0 && heads % options.kv_heads != 0))
    throw ValueError(str(kName, ": ", heads, " heads can't share ", options.kv_heads,
                         " heads of keys and values; theirs must divide them"),
                     where);
  if (options.kdim < 0 || options.vdim < 0)
    throw ValueError(str(kName, ": kdim is ", options.kdim, " and vdim ", options.vdim, ", need at least 1, or 0"),
                     where);
  if (!(options.dropout >= 0 && options.dropout < 1))
    throw ValueError(str(kName, ": dropout is ", options.dropout, ", need at least 0 and below 1"), where);
}

LinearOptions linear_options(const MultiheadAttentionOptions& options) {
  return {.bias = options.bias, .dtype = options.dtype, .device = options.device};
}

/// Heads of keys and values, of options that are checked.
int64_t checked_kv_heads(int64_t width, int64_t heads, const MultiheadAttentionOptions& options, Where where) {
  check_options(width, heads, options, where);
  return options.kv_heads > 0 ? options.kv_heads : heads;
}
bool is_packed(int64_t width, const MultiheadAttentionOptions& options) {
  return (options.kdim == 0 || options.kdim == width) && (options.vdim == 0 || options.vdim == width);
}
std::optional<Linear> map_if(bool wanted, int64_t in, int64_t out, const MultiheadAttentionOptions& options,
                             Where where) {
  if (!wanted) return {};
  return Linear(in, out, linear_options(options), where);
}
int64_t packed_width(int64_t width, int64_t shared, Where where) {
  return checked_add(width, checked_mul(2, shared, kName, where), kName, where);
}

void check_sequence(const char* role, const char* time, const Tensor& x, int64_t width, Where where) {
  if (x.shape(where).size() < 2 || x.shape().back() != width)
    throw ShapeError(str(kName, ": ", role, "needs [batch.., ", time, ", ", width, "], got ", x.shape()), where);
}

/// Part [begin, end) of what a linear map gives.
Tensor linear_part(const Linear& map, const Tensor& x, int64_t begin, int64_t end, Where where) {
  const Tensor weight = slice({map.weight, where}, 0, begin, end);
  return linear(Arg(x, where), weight, map.bias.defined() ? slice({map.bias, where}, 0, begin, end) : Tensor());
}

/// [batch.., time, heads width] seen as [batch.., heads, time, width].
Tensor split_heads(const Tensor& x, int64_t heads, Where where) {
  Shape shape = x.shape();
  const int64_t width = shape.back() / heads;
  shape[shape.size() - 1] = heads;
  shape.push_back(width);
  return transpose({reshape({x, where}, shape), where}, -3, -2);
}

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t width, int64_t heads, MultiheadAttentionOptions options, Where where)
    : heads(heads), kv_heads(checked_kv_heads(width, heads, options, where)), dropout(options.dropout),
      causal(options.causal), qkv(map_if(is_packed(width, options), width,
                                         packed_width(width, width / heads * kv_heads, where), options, where)),
      query(map_if(!qkv, width, width, options, where)),
      key(map_if(!qkv, options.kdim > 0 ? options.kdim : width, width / heads * kv_heads, options, where)),
      value(map_if(!qkv, options.vdim > 0 ? options.vdim : width, width / heads * kv_heads, options, where)),
      output(width, width, linear_options(options), where) {}

MultiheadAttention::Heads MultiheadAttention::project(const Tensor& of_query, const Tensor& of_key,
                                                      const Tensor& of_value, Where where) const {
  check_sequence("query ", "time", of_query, this->width(), where);
  check_sequence("key ", "source", of_key, qkv ? this->width() : key->weight.shape()[1], where);
  check_sequence("value ", "source", of_value, qkv ? this->width() : value->weight.shape()[1], where);
  const int64_t width = this->width(), shared = width / heads * kv_heads, all = width + 2 * shared;
  const auto split = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
    return Heads{split_heads(q, heads, where), split_heads(k, kv_heads, where), split_heads(v, kv_heads, where)};
  };
  if (!qkv) return split((*query)(of_query, where), (*key)(of_key, where), (*value)(of_value, where));
  // Maps of one operand are one product.
  const auto part = [&](const Tensor& x, int64_t begin, int64_t end) { return slice({x, where}, -1, begin, end); };
  const bool one_source = of_key.impl() == of_value.impl();
  if (one_source && of_query.impl() == of_key.impl()) {
    const Tensor together = (*qkv)(of_query, where);
    return split(part(together, 0, width), part(together, width, width + shared), part(together, width + shared, all));
  }
  const Tensor q = linear_part(*qkv, of_query, 0, width, where);
  if (one_source) {
    const Tensor both = linear_part(*qkv, of_key, width, all, where);
    return split(q, part(both, 0, shared), part(both, shared, 2 * shared));
  }
  return split(q, linear_part(*qkv, of_key, width, width + shared, where),
               linear_part(*qkv, of_value, width + shared, all, where));
}

AttentionOptions MultiheadAttention::attention_options(const Tensor& mask) const {
  return {.mask = mask, .dropout = training ? dropout : 0.0, .causal = causal, .enable_gqa = kv_heads != heads};
}

Tensor MultiheadAttention::joined(const Tensor& y, Where where) const {
  // y lies as [batch.., time, heads, width / heads] in memory already.
  const Tensor rows = transpose({y, where}, -3, -2);
  Shape shape = rows.shape();
  shape.resize(shape.size() - 1);
  shape[shape.size() - 1] = width();
  return output(reshape({rows, where}, shape), where);
}

Tensor MultiheadAttention::operator()(const Tensor& x, const Tensor& mask, Where where) const {
  check_sequence("", "time", x, width(), where);
  if (!qkv || kv_heads != heads) return (*this)(x, x, x, mask, where);
  // [batch.., time, 3 width] seen as [3, batch.., heads, time, width / heads]: only strides change.
  Shape parts = x.shape();
  parts[parts.size() - 1] = 3;
  parts.push_back(heads);
  parts.push_back(width() / heads);
  const int rank = parts.size();
  Dims order{rank - 3};
  for (int d = 0; d < rank - 4; ++d) order.push_back(d);
  for (const int d : {rank - 2, rank - 4, rank - 1}) order.push_back(d);
  const Tensor together = permute({reshape({(*qkv)(x, where), where}, parts), where}, order);
  return joined(scaled_dot_product_attention(Arg(together, where), attention_options(mask)), where);
}

Tensor MultiheadAttention::operator()(const Tensor& of_query, const Tensor& of_key, const Tensor& of_value,
                                      const Tensor& mask, Where where) const {
  const Heads h = project(of_query, of_key, of_value, where);
  return joined(
      scaled_dot_product_attention(Arg(h.q, where), Arg(h.k, where), Arg(h.v, where), attention_options(mask)), where);
}

Tensor MultiheadAttention::operator()(const Tensor& x, KeyValueCache& cache, Where where) const {
  if (training && dropout > 0)
    throw ValueError(str(kName, ": a cache is for decoding, without dropout: nn::eval(model) first"), where);
  const Heads h = project(x, x, x, where);
  return joined(cache.attend(h.q, h.k, h.v, attention_options({}), where), where);
}

KeyValueCache MultiheadAttention::make_cache(const Shape& batch, int64_t capacity, Where where) const {
  const NoGrad no_grad;
  Shape shape = batch;
  for (const int64_t extent : {kv_heads, capacity, width() / heads}) shape.push_back(extent);
  const TensorOptions like{.dtype = output.weight.dtype(), .device = output.weight.device()};
  return {zeros(shape, like, where), zeros(shape, like, where),
          zeros({}, {.dtype = int64, .device = like.device}, where)};
}

}  // namespace tandem::nn
