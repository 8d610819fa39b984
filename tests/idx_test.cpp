// IDX files, whole and damaged, and MNIST, which consists of them.
#include "formats/idx.h"

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>

#include "files.h"
#include "tandem.h"

using namespace tandem;
using namespace file_tests;

namespace {

Bytes idx_bytes(const std::vector<uint32_t>& shape, const Bytes& values, uint8_t type = 8) {
  Bytes bytes{0, 0, type, static_cast<uint8_t>(shape.size())};
  for (uint32_t extent : shape)
    for (int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(extent >> shift));
  bytes.insert(bytes.end(), values.begin(), values.end());
  return bytes;
}

Bytes gzipped(const Bytes& bytes) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  Bytes out(bytes.size() + 200);
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  deflateEnd(&stream);
  return Bytes(out.begin(), out.begin() + static_cast<long>(stream.total_out));
}

// What read_idx says of a file with these bytes, plain.
std::string complaint(const Bytes& bytes, int rank = 3) {
  TemporaryFolder folder;
  write(folder / "file", bytes);
  const std::string text = thrown<FileError>([&] { io::read_idx(folder / "file", rank); });
  CHECK(contains(text, "tandem::FileError: io::read_idx: '" + (folder / "file") + "'"));
  CHECK(contains(text, "idx_test.cpp:"));
  return text;
}

Bytes counting(size_t count) {
  Bytes values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<uint8_t>(i * 7);
  return values;
}

}  // namespace

TEST_CASE("IDX: plain and gzipped files give the same values") {
  TemporaryFolder folder;
  const Bytes values = counting(2 * 3 * 5), bytes = idx_bytes({2, 3, 5}, values);
  write(folder / "plain", bytes);
  write(folder / "packed", gzipped(bytes));
  write(folder / "members", gzipped(first(bytes, 20)) + gzipped(Bytes(bytes.begin() + 20, bytes.end())));
  for (const char* name : {"plain", "packed", "members"}) {
    const io::Idx idx = io::read_idx(folder / name, 3);
    CHECK(idx.shape == std::vector<int64_t>{2, 3, 5});
    CHECK(idx.values == values);
  }
}

TEST_CASE("IDX: a damaged file is refused with the reason and the remedy") {
  const Bytes whole = idx_bytes({2, 3, 5}, counting(30)), packed = gzipped(whole);
  CHECK(contains(complaint(first(whole, 40)),
                 "is truncated: its header promises 30 values, and 24 are there: fetch it again"));
  CHECK(contains(complaint(first(whole, 10)), "is truncated within its header"));
  CHECK(contains(complaint({}), "has 0 bytes, too few"));
  CHECK(contains(complaint(whole + Bytes{1, 2}), "has 2 bytes after the 30 values"));
  CHECK(contains(complaint(idx_bytes({2, 3, 5}, counting(30), 13)), "IDX type 13, and only bytes"));
  CHECK(contains(complaint(idx_bytes({30}, counting(30))), "has rank 1, need 3: are images and labels mixed up?"));
  CHECK(contains(complaint({'P', 'N', 'G', '!', 0, 0, 0, 0}), "is no IDX file: it begins with 50 4e 47 21"));
  CHECK(contains(complaint(idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, {})), "more values than any file can"));
  CHECK(contains(complaint(idx_bytes({0x7fffffff, 28, 28}, counting(9))), "is truncated"));
  CHECK(contains(complaint(gzipped(idx_bytes({0x10000, 28, 28}, counting(9)))), "is truncated"));
  for (size_t length : {size_t(2), size_t(9), size_t(20), packed.size() - 9, packed.size() - 1})
    CHECK(contains(complaint(first(packed, length)), "is truncated: its gzip data breaks off"));
  CHECK(contains(complaint(packed + Bytes{1, 2, 3}), "has 3 bytes after its gzip data"));
  CHECK(contains(complaint(gzipped(whole + Bytes{9})), "has bytes after the 30 values"));
  Bytes damaged = packed;
  damaged[damaged.size() - 6] ^= 1;  // in the checksum
  CHECK(contains(complaint(damaged), "is damaged: incorrect data check"));
}

TEST_CASE("IDX: any single damaged byte of a gzipped file is an error or changes nothing") {
  TemporaryFolder folder;
  const Bytes values = counting(30), packed = gzipped(idx_bytes({2, 3, 5}, values));
  for (size_t i = 0; i < packed.size(); ++i) {
    Bytes damaged = packed;
    damaged[i] ^= 0x40;
    write(folder / "file", damaged);
    try {
      const Bytes read = io::read_idx(folder / "file", 3).values;
      CHECK(read == values);  // the header's time stamp, say
    } catch (const FileError&) {}
  }
}

TEST_CASE("IDX: files that can't be opened") {
  TemporaryFolder folder;
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder / "none", 1); }), "can't be opened: No such file"));
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder.string(), 1); }), "is a directory"));
}

TEST_CASE("Mnist: finds its files, scales pixels, checks labels and counts") {
  TemporaryFolder folder;
  CHECK(contains(thrown<FileError>([&] { io::Mnist(folder.string()); }), "neither train-images-idx3-ubyte nor"));
  CHECK(contains(thrown<FileError>([&] { io::Mnist(folder / "nowhere"); }), "there is no such directory"));

  Bytes pixels(2 * 28 * 28);
  pixels[0] = 255, pixels[28 * 28 + 1] = 51;
  write(folder / "t10k-images-idx3-ubyte.gz", gzipped(idx_bytes({2, 28, 28}, pixels)));
  write(folder / "t10k-labels-idx1-ubyte", idx_bytes({2}, {7, 3}));
  const io::Mnist digits(folder.string(), {.split = io::Split::test});
  CHECK(digits.size() == 2);
  const auto [image, label] = digits.get(1);
  CHECK(image.shape() == Shape{1, 28, 28});
  CHECK(image.dtype() == float32);
  CHECK(image[0][0][1].item<float>() == (51.f / 255.f - 0.1307f) / 0.3081f);
  CHECK(label.item<int64_t>() == 3);
  CHECK(label.dtype() == int64);
  CHECK_THROWS_AS(digits.get(2), DimensionError);

  write(folder / "t10k-labels-idx1-ubyte", idx_bytes({2}, {7, 10}));
  const std::string text = thrown<FileError>([&] { io::Mnist(folder.string(), {.split = io::Split::test}); });
  CHECK(contains(text, "label 1 in '" + (folder / "t10k-labels-idx1-ubyte") + "' is 10, and digits are 0 to 9"));
  CHECK(contains(text, "idx_test.cpp:"));
  write(folder / "t10k-labels-idx1-ubyte", idx_bytes({3}, {7, 1, 2}));
  CHECK(contains(thrown<FileError>([&] { io::Mnist(folder.string(), {.split = io::Split::test}); }), "2 images, and"));
}

TEST_CASE("Mnist: the real digits, where TANDEM_DATA says they are") {
  const char* data = std::getenv("TANDEM_DATA");
  if (!data) {
    MESSAGE("skipped: TANDEM_DATA is not set");
    return;
  }
  const io::Mnist training(data), held_out(data, {.split = io::Split::test});
  CHECK(training.size() >= 8000);
  CHECK(held_out.size() >= 2000);
  std::vector<int64_t> all(static_cast<size_t>(training.size()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const auto [images, labels] = training.batch(all);
  CHECK(images.mean().item<float>() == doctest::Approx(0).epsilon(0.05));
  CHECK(labels.max().item<int64_t>() == 9);
}

TEST_CASE("IDX: what a small file would unpack to is looked at first") {
  TemporaryFolder folder;
  write(folder / "packed", gzipped(idx_bytes({50'000, 1000, 1000}, Bytes(1000))));
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder / "packed", 3); }),
                 "would unpack to 50,000,000,000 bytes, more than the limit of 1,073,741,824 bytes"));
  write(folder / "small", gzipped(idx_bytes({1000}, Bytes(1000))));
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder / "small", 1, {.unpacked_bytes = 999}); }),
                 "raise io::Limits::unpacked_bytes"));
  CHECK(io::read_idx(folder / "small", 1, {.unpacked_bytes = 1000}).values.size() == 1000);
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder / "small", 1, {.file_bytes = 10}); }),
                 "raise io::Limits::file_bytes"));
}
