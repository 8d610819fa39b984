// Convolutions over the image itself (vector/conv.cpp): cuts the work into strips of output rows, puts zeros around the input
// rows of a strip where there is padding, and packs weights into blocks of channels.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/conv.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kStripElements = 16 * 1024;        // of padded input: they stay in the second-level cache
constexpr int64_t kMostPartialElements = 8'000'000;  // of the threads' sums of a weight's gradient

/// A convolution x -> y, forward: that of the problem, or the one which makes the gradient of its input from that of its
/// output, for stride 1: over g, with the kernel turned round and its channels exchanged (Dumoulin & Visin, "A guide to
/// convolution arithmetic for deep learning", section 4).
struct Direct {
  Direct(ConvPart part, const ConvProblem& p)
      : batch(p.batch), in(p.in), in_height(p.in_height), in_width(p.in_width), out(p.out), out_height(p.out_height),
        out_width(p.out_width), stride(p.stride), turned(part == ConvPart::input_grad) {
    for (int i = 0; i < 2; ++i) {
      kernel[i] = p.kernel[i];
      dilation[i] = p.dilation[i];
      padding[i] = turned ? p.dilation[i] * (p.kernel[i] - 1) - p.padding[i] : p.padding[i];
    }
    if (turned) {
      std::swap(in, out);
      std::swap(in_height, out_height);
      std::swap(in_width, out_width);
    }
    width = loops().conv->width;
    blocks = (out + width - 1) / width;
    segment = kernel[1] * in;
    padded_width = (out_width - 1) * stride[1] + kernel[1];
    padded = padding[0] != 0 || padding[1] != 0 || padded_width > in_width;
    const int64_t line = stride[0] * padded_width * in;
    lines = std::clamp<int64_t>(kStripElements / std::max<int64_t>(line, 1), 1, out_height);
    strips = (out_height + lines - 1) / lines;
    image_line = padded ? padded_width * in : in_width * in;
    strip_elements = padded ? ((lines - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1) * image_line : 0;
    block_elements = kernel[0] * segment * width;
  }

  int64_t batch, in, in_height, in_width, out, out_height, out_width;
  const int64_t* stride;
  bool turned;
  int64_t kernel[2], dilation[2], padding[2];
  int64_t width, blocks;                 // of out channels
  int64_t segment, padded_width, lines;  // lines of y in a strip
  int64_t strips, image_line, strip_elements, block_elements;
  bool padded;

  int64_t units() const { return batch * strips; }
  /// Where so much of the last block is empty, others are faster.
  bool fills_blocks() const { return 4 * (blocks * width - out) <= out; }

  ConvStrip strip(int64_t unit) const {
    const int64_t first = unit % strips * lines;
    return {std::min(lines, out_height - first),
            out_width,
            kernel[0],
            segment,
            stride[0] * image_line,
            stride[1] * in,
            dilation[0] * image_line,
            out_width * out,
            out};
  }
  int64_t y_offset(int64_t unit) const {
    return (unit / strips * out_height + unit % strips * lines) * out_width * out;
  }

  /// The input rows of a strip: in place, or laid out in `room` with zeros around them.
  const float* input(const float* x, int64_t unit, float* room) const {
    const float* image = x + unit / strips * in_height * in_width * in;
    const int64_t first = unit % strips * lines * stride[0] - padding[0];
    if (!padded) return image + first * image_line;
    const int64_t rows = (strip(unit).lines - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1;
    const int64_t left = std::clamp<int64_t>(padding[1], 0, padded_width), begin = std::max<int64_t>(-padding[1], 0);
    const int64_t count = std::clamp<int64_t>(in_width - begin, 0, padded_width - left),
                  right = padded_width - left - count;
    float* to = room;
    for (int64_t row = first; row < first + rows; ++row, to += image_line) {
      if (row < 0 || row >= in_height) {
        std::fill_n(to, image_line, 0.0f);
        continue;
      }
      std::fill_n(to, left * in, 0.0f);
      std::memcpy(to + left * in, image + (row * in_width + begin) * in,
                  static_cast<size_t>(count * in) * sizeof(float));
      std::fill_n(to + (left + count) * in, right * in, 0.0f);
    }
    return room;
  }

  /// Where element (o, i, row, column) of this convolution's kernel lies in the problem's weight.
  int64_t weight_offset(int64_t o, int64_t i, int64_t row, int64_t column) const {
    if (turned) return ((i * out + o) * kernel[0] + kernel[0] - 1 - row) * kernel[1] + kernel[1] - 1 - column;
    return ((o * in + i) * kernel[0] + row) * kernel[1] + column;
  }
  /// Calls f(packed offset, weight offset) for the elements of a block [kernel rows, kernel columns, in, width].
  template <class F> void for_weights(int64_t block, F&& f) const {
    const int64_t columns = std::min(width, out - block * width);
    for (int64_t row = 0, at = block * block_elements; row < kernel[0]; ++row)
      for (int64_t column = 0; column < kernel[1]; ++column)
        for (int64_t i = 0; i < in; ++i, at += width)
          for (int64_t o = 0; o < columns; ++o) f(at + o, weight_offset(block * width + o, i, row, column));
  }

  void forward(const float* x, const float* weight, const float* bias, float* y) const {
    const Scratch packed(blocks * block_elements * 4), biases(blocks * width * 4);
    std::fill_n(biases.as<float>(), blocks * width, 0.0f);
    if (bias) std::copy_n(bias, out, biases.as<float>());
    parallel_for(blocks, std::max<int64_t>(1, kPointwiseGrain / block_elements), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        if ((block + 1) * width > out) std::fill_n(packed.as<float>() + block * block_elements, block_elements, 0.0f);
        for_weights(block, [&](int64_t to, int64_t from) { packed.as<float>()[to] = weight[from]; });
      }
    });
    in_pieces([&](int64_t begin, int64_t end, float* room, int64_t) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const ConvStrip s = strip(unit);
        const float* from = input(x, unit, room);
        for (int64_t block = 0; block < blocks; ++block)
          loops().conv->forward(s, from, packed.as<float>() + block * block_elements,
                                biases.as<float>() + block * width, std::min(width, out - block * width),
                                y + y_offset(unit) + block * width);
      }
    });
  }

  void weight_grad(const float* g, const float* x, float* dweight) const {
    const int64_t elements = blocks * block_elements, count = pieces();
    const Scratch sums(count * elements * 4);
    const int64_t tail = out % width,
                  tail_pixels = tail ? lines * out_width * width : 0;  // g's last channels, with room behind
    const Scratch tails(count * tail_pixels * 4);
    in_pieces([&](int64_t begin, int64_t end, float* room, int64_t piece) {
      float *own = sums.as<float>() + piece * elements, *last = tails.as<float>() + piece * tail_pixels;
      std::fill_n(own, elements, 0.0f);
      std::fill_n(last, tail_pixels, 0.0f);
      for (int64_t unit = begin; unit < end; ++unit) {
        ConvStrip s = strip(unit);
        const float *from = input(x, unit, room), *grad = g + y_offset(unit);
        for (int64_t block = 0; block < blocks; ++block) {
          const float* g_block = grad + block * width;
          if (tail && block + 1 == blocks) {
            for (int64_t pixel = 0; pixel < s.lines * s.pixels; ++pixel)
              std::copy_n(g_block + pixel * out, tail, last + pixel * width);
            g_block = last;
            s.y_pixel = width;
            s.y_line = s.pixels * width;
          }
          loops().conv->weight_grad(s, from, g_block, own + block * block_elements);
        }
      }
    });
    parallel_for(blocks, std::max<int64_t>(1, kPointwiseGrain / block_elements), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        for_weights(block, [&](int64_t from, int64_t to) {
          float total = 0;
          for (int64_t piece = 0; piece < count; ++piece) total += sums.as<float>()[piece * elements + from];
          dweight[to] = total;
        });
    });
  }

  /// As many as threads are worth while. One within a parallel region: ask before it.
  int64_t pieces() const {
    const int64_t work = lines * out_width * out * kernel[0] * segment;
    return threads_for(units(), std::max<int64_t>(1, kWorkOfThread / std::max<int64_t>(work, 1)));
  }

 private:
  static constexpr int64_t kWorkOfThread = 300000;  // multiply-adds

  /// Calls f(first unit, end, room for a strip, piece), a piece to a thread.
  template <class F> void in_pieces(F&& f) const {
    const int64_t count = pieces();
    const Scratch room(count * strip_elements * 4);
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece)
        f(piece * units() / count, (piece + 1) * units() / count, room.as<float>() + piece * strip_elements, piece);
    });
  }
};

}  // namespace

bool direct_convolve(ConvPart part, const ConvProblem& p, const ConvOperands& operands) {
  const bool strided = p.stride[0] != 1 || p.stride[1] != 1;
  if (p.groups != 1 || p.dilation[1] != 1 || (part == ConvPart::input_grad && strided)) return false;
  const Direct direct(part, p);
  if (!direct.fills_blocks()) return false;
  if (part == ConvPart::weight_grad && direct.pieces() * direct.blocks * direct.block_elements > kMostPartialElements)
    return false;
  const auto *a = static_cast<const float*>(operands.a), *b = static_cast<const float*>(operands.b);
  auto* result = static_cast<float*>(operands.result);
  if (part == ConvPart::weight_grad) direct.weight_grad(a, b, result);
  else direct.forward(a, b, static_cast<const float*>(operands.bias), result);
  return true;
}

}  // namespace tandem
