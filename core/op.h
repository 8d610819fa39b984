// Op: the one definition of an operation. The table holds them all; every layer reads it.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attributes.h"
#include "tensor.h"

namespace tandem {

struct Op;
struct UserOp;

/// What the compiler may do with an op.
enum class OpKind : uint8_t {
  pointwise,  ///< one scalar expression per element, operands broadcast
  reduce,     ///< folds dims away
  view,       ///< another shape and strides on the same storage; no kernel
  contract,   ///< matmul, convolution
  index,      ///< reads or writes at positions that are data
  random,     ///< draws numbers
  create,     ///< makes values from attributes alone
  state,      ///< reads or writes storage beside its outputs
  effect,     ///< print, assert
  control,    ///< cond, while, scan
  opaque,     ///< anything else
};
std::string_view name_of(OpKind kind);

/// Decides outputs and raises every user error. Ran by dispatch, tracer and graph verifier.
class Infer {
 public:
  Infer(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
        Where where)
      : op(op), inputs(inputs), attributes(attributes), outputs_(outputs), where(where) {}

  const Op& op;
  std::span<const Tensor> inputs;
  const Attributes& attributes;

  /// Runs op.infer. An error of a Shape's, or of checked arithmetic, gets the op's name and line here.
  void run();

  /// ValueError if the call has no such operand.
  const Tensor& input(int i) const {
    if (static_cast<size_t>(i) >= inputs.size()) [[unlikely]]
      no_operand(i);
    return inputs[static_cast<size_t>(i)];
  }
  /// Adds the next output: contiguous, on the device of the inputs. ShapeError if an extent is negative, or it were too large
  /// for any memory.
  Tensor& output(const Shape& shape, DType dtype);
  /// Adds the next output with the dense strides given (see is_dense).
  Tensor& output(const Shape& shape, const Shape& strides, DType dtype);
  /// Adds the next output like `tensor`: its shape, dtype, and its layout if that is dense.
  Tensor& output(const Tensor& tensor);
  /// The output of a view op: same storage as input 0, `offset` elements further.
  Tensor& view(const Shape& shape, const Shape& strides, int64_t offset = 0);
  int output_count() const { return count_; }

  /// Throws E with "op: message".
  template <class E, class... Parts> [[noreturn]] void fail(const Parts&... parts) const {
    throw E(detail::str(name(), ": ", parts...), where_of_error());
  }
  template <class E, class... Parts> void check(bool condition, const Parts&... parts) const {
    if (!condition) [[unlikely]]
      fail<E>(parts...);
  }
  void check_floating(int input) const;

  // Attributes as the kernels want them. Public functions have made them so; graph text and calls by name may not.
  /// A dim in [0, rank). A number is a row of one.
  int dim(const char* name, int rank) const;
  int dim(const char* name) const { return dim(name, input(0).rank()); }
  /// The same for several, none twice. None of a 0-d tensor.
  const Shape& dims(const char* name) const;
  /// `count` numbers in [least, most].
  const Shape& integers(const char* name, int count, int64_t least = std::numeric_limits<int64_t>::min(),
                        int64_t most = std::numeric_limits<int64_t>::max()) const;
  int64_t integer(const char* name, int64_t least, int64_t most = std::numeric_limits<int64_t>::max()) const;

 private:
  std::string_view name() const;
  [[noreturn]] void no_operand(int i) const;
  Where where_of_error() const { return where; }
  Device device() const;
  Tensor& next(DType dtype);

  std::span<Tensor> outputs_;
  int count_ = 0;

 public:
  Where where;
};

/// What a gradient rule sees. The rule returns one tensor for each input, undefined where there
/// is no gradient; it is written with public functions, so that it can itself be differentiated
/// and traced. Gradients of broadcast or promoted operands are summed and cast by the engine.
class OpContext {
 public:
  virtual const Op& op() const = 0;
  virtual const Attributes& attributes() const = 0;
  /// Gradient of output i; zeros if nothing flowed into it.
  virtual Tensor grad_output(int i = 0) const = 0;
  virtual bool has_grad_output(int i) const = 0;
  virtual Tensor input(int i) const = 0;       ///< must be in Op::saved
  virtual Tensor output(int i = 0) const = 0;  ///< must be in Op::saved
  virtual const Shape& input_shape(int i) const = 0;
  virtual DType input_dtype(int i) const = 0;
  virtual Device device() const = 0;
  virtual int input_count() const = 0;
  /// False where nobody asked for this gradient: don't compute it.
  virtual bool needs_grad(int input) const = 0;

  double attribute(std::string_view name) const { return attributes().number(name); }
  int64_t integer(std::string_view name) const { return attributes().integer(name); }
  const Shape& integers(std::string_view name) const { return attributes().integers(name); }

 protected:
  ~OpContext() = default;
};

/// What a kernel sees: inputs with values, outputs with memory. Kernels never allocate outputs.
class KernelContext {
 public:
  KernelContext(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                std::span<const Tensor> outputs, Where where)
      : op(op), inputs(inputs), outputs(outputs), attributes(attributes), where(where) {}

  const Op& op;
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  const Attributes& attributes;
  Where where;

  /// ValueError if the call has no such operand, or result.
  const TensorImpl& in(int i) const { return *at(inputs, i, "operand").impl(); }
  TensorImpl& out(int i = 0) const { return *at(outputs, i, "result").impl(); }
  /// Elements of a contiguous input; DTypeError if it holds another type.
  template <class T> std::span<const T> input(int i) const {
    if (in(i).dtype != dtype_of<T>) [[unlikely]]
      wrong_type("input", i, in(i).dtype, dtype_of<T>);
    return {static_cast<const T*>(in(i).data), static_cast<size_t>(in(i).shape.numel())};
  }
  template <class T> std::span<T> output(int i = 0) const {
    if (out(i).dtype != dtype_of<T>) [[unlikely]]
      wrong_type("output", i, out(i).dtype, dtype_of<T>);
    return {static_cast<T*>(out(i).data), static_cast<size_t>(out(i).shape.numel())};
  }
  double attribute(std::string_view name) const { return attributes.number(name); }
  template <class E, class... Parts> [[noreturn]] void fail(const Parts&... parts) const {
    throw E(detail::str(op_name(), ": ", parts...), where);
  }

 private:
  std::string_view op_name() const;
  const Tensor& at(std::span<const Tensor> tensors, int i, const char* role) const {
    if (static_cast<size_t>(i) >= tensors.size()) [[unlikely]]
      absent(role, i, tensors.size());
    return tensors[static_cast<size_t>(i)];
  }
  [[noreturn]] void absent(const char* role, int i, size_t count) const;
  [[noreturn]] void wrong_type(const char* role, int i, DType has, DType asked) const;
};

using InferFn = void (*)(Infer&);
using GradFn = Tensors (*)(const OpContext&);
using KernelFn = void (*)(KernelContext&);
/// The op written with simpler public ops, for the compiler to fuse. Must agree with the kernel. No
/// tensors at all: this call is better left whole.
using DecomposeFn = Tensors (*)(std::span<const Tensor> inputs, const Attributes& attributes);

/// Result 0 of an op once more, from its other results (`results` has none at 0), which are kept anyway. Written with pointwise
/// ops and views: of float32 and float64 on the CPU, bit by bit what the kernel makes.
using AgainFn = Tensor (*)(std::span<const Tensor> results, const Attributes& attributes);

/// Which operands (as in(0) | in(1)) lead with the rows that the results lead with: a block of rows of the results needs the same
/// rows of these, and all of the other operands; an attribute "shape" leads with them too. Rows are what the leading dim
/// counts: images of a batch, positions. 0: they depend on one another.
using RowsFn = uint32_t (*)(std::span<const Tensor> inputs, const Attributes&);

/// Which operands the gradient rule of an op reads: `in(0) | out(0)`.
constexpr uint32_t in(int i) { return 1u << i; }
constexpr uint32_t out(int i) { return 1u << (16 + i); }
inline constexpr uint32_t kSaveNothing = 0;
/// Of ops with any number of operands, or results.
inline constexpr uint32_t kSaveInputs = 0xffff, kSaveOutputs = 0xffff0000;

/// dtypes that a pointwise op computes in.
enum class Domain : uint8_t {
  any,       ///< every dtype
  numeric,   ///< all but bool
  floating,  ///< integers and bool become float32 first
  integral,  ///< integers and bool
  whole,     ///< integers
};
/// What an expression costs, to a compiler that weighs keeping its result against computing it again.
enum class Cost : uint8_t {
  arithmetic,  ///< operators alone, td_add(x, y) among them
  light,       ///< a function of an instruction or two
  heavy,       ///< any other function
};
/// By the functions of core/scalar/math.h that it calls, named without td_.
Cost cost_of_calls(std::span<const std::string_view> functions);

/// The scalar expression of a pointwise op, over x, y, z.
struct Pointwise {
  int id = -1;  ///< index among the entries of pointwise.def; -1 for a user's op
  const char* expression = nullptr;
  Domain domain = Domain::any;
  bool returns_bool = false;  ///< comparisons and logic
  bool selects = false;       ///< first operand is bool whatever the others are (where)
  /// Filled where the op is defined.
  Cost cost = Cost::arithmetic;
};

/// What Autocast does to the float32 (or 16-bit) operands of an op.
enum class AutocastRule : uint8_t {
  keep,   ///< nothing: it computes in what it is given
  lower,  ///< casts them to the 16-bit type: matrix products, where that is faster and accumulates in float32
  widen,  ///< casts them to float32: sums of many terms, exponentials, losses
};

/// How a reduction combines elements.
enum class Fold : uint8_t { sum, prod, max, min };

/// What the dims of a view walk.
enum class View : uint8_t {
  reshape,  ///< the operand's elements in their order
  expand,   ///< the operand's dims; new ones, and those of extent 1, repeat
  permute,  ///< the operand's dims in the order of attribute "dims"
};

/// Elements that are known from their position.
enum class Sequence : uint8_t {
  range,    ///< attribute "begin" plus position times "step"
  uniform,  ///< the random number for the position: operand 0 is the key, attribute "site" is added to its draw; float32
};

/// The number that, as left or right operand, gives the other operand back to the bit.
struct Neutral {
  std::optional<double> left = {}, right = {};
};

inline constexpr int kVariadic = -1;
inline constexpr int kMaxOutputs = 4;

struct Op {
  const char* name = nullptr;
  OpKind kind = OpKind::opaque;
  int inputs = 1;   ///< kVariadic: any number
  int outputs = 1;  ///< kMaxOutputs at most; kVariadic: any number
  AttributeSchema attributes = {};
  InferFn infer = nullptr;
  GradFn grad = nullptr;  ///< null: not differentiable
  uint32_t saved = kSaveNothing;
  /// Dispatch makes inputs contiguous before anything else sees them.
  bool contiguous_inputs = false;
  /// The kernel may write each output over the input of its type and layout: it reads an element before it writes it.
  bool in_place = false;
  /// The result is operand 0 with some of its elements replaced: the kernel may be given the same memory for both, if no
  /// other operand lies there.
  bool updates_operand = false;
  DecomposeFn decompose = nullptr;
  const char* onnx = nullptr;
  Pointwise pointwise = {};
  AutocastRule autocast = AutocastRule::keep;
  // What it is to the compiler, beside `kind` and `decompose`.
  std::optional<Fold> fold = {};          ///< of operand 0 over attribute "dims", left as extents of 1 if "keepdim"
  bool averages = false;                  ///< the fold is divided by how many elements were folded, and rounded once
  std::optional<View> view = {};          ///< none of a view that picks elements
  std::optional<Sequence> sequence = {};  ///< computed wherever it is read
  Neutral neutral = {};                   ///< of an op of two operands
  bool checks_range = false;              ///< a view whose elements generated kernels check (core/range_check.h)
  bool keeps_values = false;              ///< the result is operand 0 to the bit, if it has its type
  bool fills = false;                     ///< all elements are attribute "value"
  bool transfers = false;                 ///< brings operand 0 to another device, or to the host
  // What saves memory.
  /// Of each result: the operand over whose elements the kernel may write it, if their types are one and nothing else that
  /// it reads lies there; -1: none beside what in_place allows.
  std::array<int8_t, kMaxOutputs> over = {-1, -1, -1, -1};
  AgainFn again = nullptr;  ///< null: result 0 doesn't follow from the others
  bool masks = false;       ///< pointwise: operand 0 where operand 1 says so, by one rule for each element, else 0
  bool picks = false;       ///< result 0 holds elements of operand 0, result 1 their positions
  bool places = false;      ///< adds operand 0's elements to zeros, at positions that a call that picks gave, operand 1
  RowsFn rows = nullptr;    ///< null: none, but for pointwise ops, folds and views of a kind, where it is known
  std::array<KernelFn, kDeviceKinds> kernels = {};  ///< by kind of device (kernel_for), filled by kernels/
  int id = -1;
  const UserOp* user = nullptr;  ///< of an op that pointwise_op or custom_op made (core/custom_op.h)

  bool is_pointwise() const { return kind == OpKind::pointwise; }

  /// Calls the op, as the functions of ops.h call theirs. Pointwise operands broadcast and promote. ValueError if the
  /// number of operands, or of results, or an attribute, isn't the op's. Defined in core/custom_op.cpp.
  Tensor operator()(const Arg& x, const Attributes& attributes = {}) const;
  Tensor operator()(const Arg& x, const Arg& y, const Attributes& attributes = {}) const;
  Tensor operator()(const Arg& x, const Arg& y, const Arg& z, const Attributes& attributes = {}) const;
  /// Any number of operands and results.
  Tensors operator()(const Tensors& operands, const Attributes& attributes = {}, Where where = Where::current()) const;
};

/// The kernel of `op` for the device, null where it has none.
inline KernelFn kernel_for(const Op& op, Device device) { return op.kernels[static_cast<size_t>(device.kind)]; }

/// All ops. Each family adds its own in core/ops/<family>.cpp, and its kernels in
/// kernels/<device>/<family>; core/families.def names the families.
class OpTable {
 public:
  Op& add(Op op);
  /// The op of that name; asserts that it exists.
  Op& at(std::string_view name);
  Op* find(std::string_view name);
  /// Users' ops are added to the end.
  std::span<Op* const> all() const { return ops_; }

 private:
  std::vector<Op*> ops_;
};

/// The kernels of one kind of device, for a family's file to fill: `kernels["softmax"] = softmax_kernel`.
class Kernels {
 public:
  Kernels(OpTable& table, DeviceKind kind) : table_(table), kind_(kind) {}
  KernelFn& operator[](std::string_view name) const { return (*this)[table_.at(name)]; }
  KernelFn& operator[](Op& op) const { return op.kernels[static_cast<size_t>(kind_)]; }
  std::span<Op* const> ops() const { return table_.all(); }

 private:
  OpTable& table_;
  DeviceKind kind_;
};

/// The table, filled at first use.
OpTable& op_table();
inline const Op& find_op(std::string_view name) { return op_table().at(name); }

/// Fills the table: definitions, kernels, and what hangs on dispatch (see Recorder, ExpressionCompiler). Called once, before
/// the first op runs. Defined in assemble.cpp, the one place that knows all layers.
void assemble(OpTable& table);

}  // namespace tandem
