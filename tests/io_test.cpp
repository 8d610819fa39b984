// Data sets, the loader, IDX files whole and damaged, drawn digits, progress.
#include "tandem/io/io.h"

#include <doctest/doctest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tandem/tandem.h"

using namespace tandem;
namespace fs = std::filesystem;

namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "tandem-io-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string string() const { return path_.string(); }

 private:
  fs::path path_;
};

using Bytes = std::vector<uint8_t>;

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

Bytes first(const Bytes& bytes, size_t count) {
  return Bytes(bytes.begin(), bytes.begin() + static_cast<long>(count));
}
Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void write(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

template <class E, class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// What read_idx says of a file with these bytes, plain.
std::string complaint(const Bytes& bytes, int rank = 3) {
  TemporaryFolder folder;
  write(folder / "file", bytes);
  const std::string text = thrown<FileError>([&] { io::read_idx(folder / "file", rank); });
  CHECK(contains(text, "tandem::FileError: io::read_idx: '" + (folder / "file") + "'"));
  CHECK(contains(text, "io_test.cpp:"));
  return text;
}

Bytes counting(size_t count) {
  Bytes values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<uint8_t>(i * 7);
  return values;
}

// Items that know their number; get() can be told to throw or to take its time.
struct Numbers {
  int64_t count = 10;
  int64_t bad = -1;
  bool slow = false;
  int64_t size() const { return count; }
  std::pair<Tensor, Tensor> get(int64_t index) const {
    if (index == bad) throw std::out_of_range("item " + std::to_string(index) + " is bad");
    if (slow) std::this_thread::sleep_for(std::chrono::microseconds(200 * (index % 3)));
    return {full({2}, double(index)), tensor<int64_t>(index)};
  }
};
struct OnlyImages {
  int64_t size() const { return 5; }
  Tensor get(int64_t index) const { return full({1, 2}, double(index)); }
};

template <class Loader>
std::vector<int64_t> order_of(Loader&& loader) {
  std::vector<int64_t> order;
  for (auto& [images, labels] : loader) {
    const std::vector<int64_t> batch = labels.template to_vector<int64_t>();
    CHECK(images.size(0) == labels.size(0));
    for (size_t i = 0; i < batch.size(); ++i)
      CHECK(images[static_cast<int64_t>(i)][0].template item<float>() == float(batch[i]));
    order.insert(order.end(), batch.begin(), batch.end());
  }
  return order;
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
  CHECK(contains(complaint(idx_bytes({30}, counting(30))),
                 "has rank 1, need 3: are images and labels mixed up?"));
  CHECK(contains(complaint({'P', 'N', 'G', '!', 0, 0, 0, 0}), "is no IDX file: it begins with 50 4e 47 21"));
  CHECK(contains(complaint(idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, {})),
                 "more values than any file can"));
  CHECK(contains(complaint(idx_bytes({0x7fffffff, 28, 28}, counting(9))), "is truncated"));
  CHECK(contains(complaint(gzipped(idx_bytes({0x7fffffff, 28, 28}, counting(9)))), "is truncated"));
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
    } catch (const FileError&) {
    }
  }
}

TEST_CASE("IDX: files that can't be opened") {
  TemporaryFolder folder;
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder / "none", 1); }),
                 "can't be opened: No such file"));
  CHECK(contains(thrown<FileError>([&] { io::read_idx(folder.string(), 1); }), "is a directory"));
}

TEST_CASE("Mnist: finds its files, scales pixels, checks labels and counts") {
  TemporaryFolder folder;
  CHECK(contains(thrown<FileError>([&] { io::Mnist(folder.string()); }),
                 "neither train-images-idx3-ubyte nor"));
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
  CHECK(contains(text,
                 "label 1 in '" + (folder / "t10k-labels-idx1-ubyte") + "' is 10, and digits are 0 to 9"));
  CHECK(contains(text, "io_test.cpp:"));
  write(folder / "t10k-labels-idx1-ubyte", idx_bytes({3}, {7, 1, 2}));
  CHECK(contains(thrown<FileError>([&] { io::Mnist(folder.string(), {.split = io::Split::test}); }),
                 "2 images, and"));
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

TEST_CASE("Loader: batches in order, the last one short or dropped") {
  Numbers data;
  io::Loader loader(data, {.batch_size = 4});
  CHECK(loader.size() == 3);
  CHECK(order_of(loader) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  io::Loader full_only(data, {.batch_size = 4, .drop_last = true});
  CHECK(full_only.size() == 2);
  CHECK(order_of(full_only).size() == 8);
  CHECK(order_of(io::Loader(data, {.batch_size = 3})).size() == 10);  // over temporaries
  CHECK(order_of(io::Loader(Numbers{}, {.batch_size = 3})).size() == 10);
  data.count = 0;
  CHECK(io::Loader(data, {.batch_size = 3}).size() == 0);
  CHECK(order_of(io::Loader(data, {.batch_size = 3, .workers = 1})).empty());
}

TEST_CASE("Loader: a shuffle is a permutation, new in each epoch, the same for the same seed") {
  const Numbers data{.count = 50};
  io::Loader loader(data, {.batch_size = 8, .shuffle = true, .seed = 5});
  const std::vector<int64_t> a = order_of(loader), b = order_of(loader);
  CHECK(loader.epoch() == 2);
  CHECK(std::set<int64_t>(a.begin(), a.end()).size() == 50);
  CHECK(a != b);
  io::Loader again(data, {.batch_size = 8, .shuffle = true, .seed = 5}),
      other(data, {.batch_size = 8, .shuffle = true, .seed = 6});
  CHECK(order_of(again) == a);
  CHECK(order_of(other) != a);
  again.set_epoch(1);
  CHECK(order_of(again) == b);
}

TEST_CASE("Loader: workers don't change the order") {
  const Numbers data{.count = 61, .slow = true};
  io::Loader alone(data, {.batch_size = 4, .shuffle = true, .seed = 1});
  const std::vector<int64_t> expected = order_of(alone);
  for (int workers : {1, 2, 5, 40}) {
    io::Loader loader(data, {.batch_size = 4, .shuffle = true, .workers = workers, .seed = 1});
    CHECK(order_of(loader) == expected);
  }
}

TEST_CASE("Loader: leaving early stops the workers, and the next epoch is whole") {
  const Numbers data{.count = 100, .slow = true};
  io::Loader loader(data, {.batch_size = 2, .workers = 2});
  for (auto& [images, labels] : loader) {
    CHECK(labels[0].item<int64_t>() == 0);
    (void)images;
    break;
  }
  CHECK(order_of(loader).size() == 100);
}

TEST_CASE("Loader: what a worker throws reaches the caller whole, after the batches before it") {
  const Numbers data{.count = 20, .bad = 9};
  for (int workers : {0, 1, 3}) {
    io::Loader loader(data, {.batch_size = 2, .workers = workers});
    int64_t batches = 0;
    const std::string text = thrown<std::out_of_range>([&] {
      for (auto& [images, labels] : loader) {
        (void)images, (void)labels;
        ++batches;
      }
    });
    CHECK(text == "item 9 is bad");
    CHECK(batches == 4);
  }
}

TEST_CASE("Loader: items that are one tensor, and options out of range") {
  int64_t rows = 0;
  for (Tensor& batch : io::Loader(OnlyImages{}, {.batch_size = 2})) {
    CHECK(batch.rank() == 3);
    rows += batch.size(0);
  }
  CHECK(rows == 5);
  CHECK(contains(thrown<ValueError>([] { io::Loader(OnlyImages{}, {.batch_size = 0}); }), "batch_size is 0"));
  CHECK(contains(thrown<ValueError>([] { io::Loader(OnlyImages{}, {.workers = -1}); }), "workers is -1"));
  CHECK_THROWS_AS(io::stack({}), ValueError);
  CHECK_THROWS_AS(io::stack(Tensors{ones({2}), ones({3})}), ShapeError);
}

TEST_CASE("SyntheticDigits: deterministic, balanced, centred, and without a picture in both splits") {
  const io::SyntheticDigits digits({.count = 600, .seed = 4}), again({.count = 100, .seed = 4}),
      other({.count = 100, .seed = 5});
  const io::SyntheticDigits held_out({.split = io::Split::test, .count = 100, .seed = 4});
  CHECK(digits.size() == 600);
  CHECK(io::SyntheticDigits({.split = io::Split::test}).size() == 2000);
  int counts[10] = {};
  std::set<std::vector<uint8_t>> pictures;
  for (int64_t i = 0; i < digits.size(); ++i) {
    ++counts[digits.label(i)];
    const auto pixels = digits.pixels(i);
    pictures.emplace(pixels.begin(), pixels.end());
    double ink = 0, x = 0, y = 0;
    for (int at = 0; at < 784; ++at)
      ink += pixels[at], x += pixels[at] * (at % 28), y += pixels[at] * (at / 28);
    CHECK(ink > 255 * 10);
    CHECK(std::abs(x / ink - 13.5) < 6);
    CHECK(std::abs(y / ink - 13.5) < 6);
  }
  CHECK(pictures.size() == 600);
  for (int count : counts) CHECK(count > 30);
  const auto same = [](std::span<const uint8_t> a, std::span<const uint8_t> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  };
  for (int64_t i = 0; i < 100; ++i) {
    CHECK(same(digits.pixels(i), again.pixels(i)));
    CHECK(!same(digits.pixels(i), other.pixels(i)));
    const auto pixels = held_out.pixels(i);
    CHECK(!pictures.contains(std::vector<uint8_t>(pixels.begin(), pixels.end())));
  }
}

namespace {

struct Captured {
  std::FILE* file = std::tmpfile();
  ~Captured() { std::fclose(file); }
  std::string text() const {
    std::string result(static_cast<size_t>(std::ftell(file)), '\0');
    std::rewind(file);
    const size_t read = std::fread(result.data(), 1, result.size(), file);
    CHECK(read == result.size());
    return result;
  }
};

}  // namespace

TEST_CASE("Progress: away from a terminal, a plain last line with the metrics") {
  Captured out;
  {
    Progress progress(3, "epoch 0", {.output = out.file});
    for (int i = 0; i < 3; ++i) progress.update({{"loss", full({}, 0.5 - i * 0.125)}, {"lr", 1e-3}});
    CHECK(progress.done() == 3);
  }
  const std::string text = out.text();
  CHECK(contains(text, "epoch 0  3/3  loss 0.25  lr 0.001  "));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(!contains(text, "\x1b"));
}

TEST_CASE("Progress: a loop that is left early still shows where it was") {
  Captured out;
  {
    Progress progress(10, "fit", {.output = out.file});
    progress.update({}, 4);
  }
  CHECK(contains(out.text(), "fit  4/10 (40%)"));
}

TEST_CASE("Progress: a bar rewrites its line and ends it once") {
  Captured out;
  {
    Progress progress(2, "fit", {.output = out.file, .style = ProgressStyle::bar});
    progress.update({{"loss", 1.0}});
    progress.update({{"loss", 0.5}});
  }
  const std::string text = out.text();
  CHECK(text.front() == '\r');
  CHECK(contains(text, "1/2"));
  CHECK(contains(text, "2/2"));
  CHECK(contains(text, "loss 0.5"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.back() == '\n');
}

TEST_CASE("Progress: a tensor is read only when it is shown") {
  Captured out;
  Progress progress(1000000, "", {.output = out.file, .style = ProgressStyle::bar});
  const Tensor many = ones({2});                                   // item() of this would throw
  progress.update({{"loss", 1.0}});                                // shown, being the first
  for (int i = 0; i < 10; ++i) progress.update({{"loss", many}});  // within a tenth of a second: not shown
  Progress silent(1, "", {.output = out.file, .style = ProgressStyle::silent});
  silent.update({{"loss", many}});
}
