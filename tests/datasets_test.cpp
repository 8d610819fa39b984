// Data sets: CIFAR-10, text, tensors, and what is drawn or written for where no data is at hand.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "files.h"
#include "tandem.h"

using namespace tandem;
using namespace file_tests;

TEST_CASE("SyntheticDigits: deterministic, balanced, centred, and without a picture in both splits") {
  const io::SyntheticDigits digits({.count = 600, .seed = 4}), again({.count = 100, .seed = 4}),
      other({.count = 100, .seed = 5});
  const io::SyntheticDigits held_out({.split = io::Split::test, .count = 100, .seed = 4});
  CHECK(digits.size() == 600);
  CHECK(io::SyntheticDigits({.split = io::Split::test}).size() == 2000);
  int counts[10] = {};
  std::set<std::string> pictures;
  for (int64_t i = 0; i < digits.size(); ++i) {
    ++counts[digits.label(i)];
    const auto pixels = digits.pixels(i);
    pictures.emplace(pixels.begin(), pixels.end());
    double ink = 0, x = 0, y = 0;
    for (int at = 0; at < 784; ++at) ink += pixels[at], x += pixels[at] * (at % 28), y += pixels[at] * (at / 28);
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
    CHECK(!pictures.contains(std::string(pixels.begin(), pixels.end())));
  }
}

TEST_CASE(
    "SyntheticShapes: deterministic, all ten classes, in the format of Cifar10, without a picture in both splits") {
  const io::SyntheticShapes shapes({.count = 300, .seed = 3}), longer({.count = 320, .seed = 3}),
      held_out({.split = io::Split::test, .count = 300, .seed = 3});
  CHECK(io::SyntheticShapes({.split = io::Split::test}).size() == 1000);
  std::set<std::string> pictures;
  std::set<int64_t> labels;
  for (int64_t i = 0; i < shapes.size(); ++i) {
    labels.insert(shapes.label(i));
    pictures.emplace(shapes.pixels(i).begin(), shapes.pixels(i).end());
    CHECK(std::equal(shapes.pixels(i).begin(), shapes.pixels(i).end(), longer.pixels(i).begin()));
  }
  CHECK(pictures.size() == 300);
  CHECK(labels.size() == 10);
  for (int64_t i = 0; i < held_out.size(); ++i)
    CHECK_FALSE(pictures.contains(std::string(held_out.pixels(i).begin(), held_out.pixels(i).end())));
  const auto [image, label] = shapes.get(0);
  CHECK(image.shape() == Shape{3, 32, 32});
  CHECK(label.dtype() == int64);
  CHECK(std::string(io::synthetic_shape(6)) == "star");
  CHECK(contains(thrown<ValueError>([] { io::SyntheticShapes({.count = -1}); }), "count is -1"));
  CHECK_THROWS_AS(io::synthetic_shape(10), ValueError);
}

namespace {

constexpr size_t kRecord = 3073;

// Record i has label i % 10 and pixels that begin with i.
Bytes cifar_bytes(int records, int from = 0) {
  Bytes bytes;
  for (int i = from; i < from + records; ++i) {
    bytes.push_back(static_cast<uint8_t>(i % 10));
    for (int p = 0; p < 3072; ++p) bytes.push_back(static_cast<uint8_t>(i + 7 * p));
  }
  return bytes;
}

std::string cifar_complaint(const Bytes& bytes) {
  TemporaryFolder folder;
  write(folder / "file", bytes);
  const std::string text = thrown<FileError>([&] { io::Cifar10(folder / "file"); });
  CHECK(contains(text, "tandem::FileError: io::Cifar10: '" + (folder / "file") + "' "));
  CHECK(contains(text, "datasets_test.cpp:"));
  return text;
}

}  // namespace

TEST_CASE("Cifar10: a folder's five files in order, the test file, a nested folder, one file") {
  TemporaryFolder folder;
  fs::create_directory(folder / "cifar10");
  for (int i = 0; i < 5; ++i)
    write(folder / ("cifar10/data_batch_" + std::to_string(i + 1) + ".bin"), cifar_bytes(2, 2 * i));
  write(folder / "cifar10/test_batch.bin", cifar_bytes(3, 100));
  for (const std::string& path : {folder.string(), folder / "cifar10"}) {
    const io::Cifar10 images(path);
    REQUIRE(images.size() == 10);
    CHECK(images.channels() == 3);
    for (int64_t i = 0; i < 10; ++i) {
      CHECK(images.label(i) == i);
      CHECK(images.pixels(i)[0] == i);
    }
    CHECK(io::Cifar10(path, {.split = io::Split::test}).size() == 3);
  }
  const io::Cifar10 one(folder / "cifar10/test_batch.bin", {.scaling = {}});
  const auto [images, labels] = one.batch(std::vector<int64_t>{2, 0});
  CHECK(images.shape() == Shape{2, 3, 32, 32});
  CHECK(labels.to_vector<int64_t>() == std::vector<int64_t>{2, 0});
  CHECK(images[0][1][2][3].item<float>() == float(uint8_t(102 + 7 * (1024 + 2 * 32 + 3))) / 255.f);
  const Tensor scaled = io::Cifar10(folder / "cifar10/test_batch.bin").get(2).first;
  CHECK(scaled[2][0][0].item<float>() == (float(uint8_t(102 + 7 * 2048)) / 255.f - 0.4465f) / 0.2616f);
  CHECK(std::string(io::cifar10_class(9)) == "truck");
  CHECK(contains(thrown<ValueError>([&] {
                   io::Cifar10(folder.string(), {.scaling = {.deviation = {1, 0, 1}}});
                 }),
                 "the deviation of channel 1 is 0"));

  fs::remove(folder / "cifar10/data_batch_2.bin");
  fs::remove(folder / "cifar10/data_batch_5.bin");
  CHECK(contains(thrown<FileError>([&] { io::Cifar10(folder.string()); }),
                 "io::Cifar10: not in '" + (folder / "cifar10") + "': data_batch_2.bin, data_batch_5.bin: give"));
  CHECK(contains(thrown<FileError>([&] { io::Cifar10(folder / "nowhere"); }),
                 "'" + (folder / "nowhere") + "' can't be opened: No such file"));
}

TEST_CASE("Cifar10: a damaged file is refused with the counts of bytes") {
  const Bytes whole = cifar_bytes(12);
  CHECK(contains(cifar_complaint({}), "is empty"));
  CHECK(contains(cifar_complaint(first(whole, 100)),
                 "has 100 bytes: 0 records of 3,073 bytes and 100 bytes more. It is truncated"));
  CHECK(contains(cifar_complaint(first(whole, whole.size() - 1)),
                 "has 36,875 bytes: 11 records of 3,073 bytes and 3,072 bytes more"));
  CHECK(contains(cifar_complaint(whole + Bytes{0}), "has 36,877 bytes: 12 records of 3,073 bytes and 1 byte more"));
  Bytes damaged = whole;
  damaged[4 * kRecord] = 10;
  CHECK(contains(cifar_complaint(damaged), "has label 10 in record 4 (byte 12292), and labels are 0 to 9"));
}

TEST_CASE("Cifar10: crops and flips are those of the image, drawn anew in each epoch and whoever asks") {
  TemporaryFolder folder;
  write(folder / "file", cifar_bytes(8));
  const io::Cifar10 plain(folder / "file", {.scaling = {}}),
      drawn(folder / "file", {.scaling = {}, .augmentation = {.crop_padding = 4, .horizontal_flip = true}});
  const std::vector<int64_t> all{0, 1, 2, 3, 4, 5, 6, 7}, some{5, 2};
  const Tensor as_they_are = plain.batch(all).first;
  CHECK(allclose(drawn.batch(all).first, as_they_are));
  CHECK(allclose(drawn.get(3).first, as_they_are[3]));
  const io::EpochRandom first_epoch{.seed = 5, .epoch = 0};
  const Tensor batch = drawn.batch(all, first_epoch).first;
  CHECK(allclose(batch, drawn.batch(all, first_epoch).first));
  CHECK_FALSE(allclose(batch, drawn.batch(all, {.seed = 5, .epoch = 1}).first));
  CHECK_FALSE(allclose(batch, drawn.batch(all, {.seed = 6, .epoch = 0}).first));
  const Tensor two = drawn.batch(some, first_epoch).first;  // whatever else is in the batch
  CHECK(allclose(two[0], batch[5]));
  CHECK(allclose(two[1], batch[2]));

  // Each is one of the 9 x 9 x 2 cuts from the padded image.
  std::set<int> flips;
  for (int64_t i = 0; i < 8; ++i) {
    const std::vector<float> image = as_they_are[i].to_vector<float>(), cut = batch[i].to_vector<float>();
    int matches = 0;
    for (int down = -4; down <= 4; ++down)
      for (int right = -4; right <= 4; ++right)
        for (int flip = 0; flip < 2; ++flip) {
          bool same = true;
          for (int at = 0; at < 3072 && same; ++at) {
            const int y = at / 32 % 32 + down, x = at % 32 + right;
            const float expected = y < 0 || y > 31 || x < 0 || x > 31
                                       ? 0.f
                                       : image[static_cast<size_t>(at / 1024 * 1024 + y * 32 + (flip ? 31 - x : x))];
            same = cut[static_cast<size_t>(at)] == expected;
          }
          if (same) ++matches, flips.insert(flip);
        }
    CHECK(matches == 1);
  }
  CHECK(flips.size() == 2);
  CHECK(contains(thrown<ValueError>([&] { io::Cifar10(folder / "file", {.augmentation = {.crop_padding = -1}}); }),
                 "crop_padding is -1"));
}

TEST_CASE("Cifar10 and ByteText: the real data, where TANDEM_DATA says it is") {
  const char* data = std::getenv("TANDEM_DATA");
  if (!data || !fs::exists(fs::path(data) / "cifar10")) {
    MESSAGE("skipped: TANDEM_DATA is not set, or has no cifar10");
    return;
  }
  const io::Cifar10 training(data), held_out(data, {.split = io::Split::test});
  CHECK(training.size() >= 5000);
  CHECK(held_out.size() >= 1000);
  std::vector<int64_t> all(1000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  CHECK(std::abs(training.batch(all).first.mean().item<float>()) < 0.1f);
  const io::ByteText text(data, {.context = 64}), rest(data, {.context = 64, .split = io::Split::test});
  CHECK(text.bytes().size() + rest.bytes().size() == 1115394);
}

TEST_CASE("ByteText: sequential windows predict each byte but the first once") {
  const io::ByteText text =
      io::ByteText::of("abcdefghijk", {.context = 3, .windows = io::Windows::sequential, .held_out = 0});
  REQUIRE(text.size() == 3);  // 10 bytes to predict: the last one is left
  const auto [inputs, targets] = text.get(1);
  CHECK(inputs.dtype() == int64);
  CHECK(inputs.to_vector<int64_t>() == std::vector<int64_t>{'d', 'e', 'f'});
  CHECK(targets.to_vector<int64_t>() == std::vector<int64_t>{'e', 'f', 'g'});
  const auto batch = text.batch(std::vector<int64_t>{2, 0});
  CHECK(batch.first.shape() == Shape{2, 3});
  CHECK(batch.second.to_vector<int64_t>() == std::vector<int64_t>{'h', 'i', 'j', 'b', 'c', 'd'});
  CHECK_THROWS_AS(text.get(3), DimensionError);
  CHECK(io::ByteText::of("abcd", {.context = 3, .windows = io::Windows::sequential, .held_out = 0}).size() == 1);
  CHECK(io::ByteText::of("\xff\xfe", {.context = 1, .held_out = 0}).get(0).first.item<int64_t>() == 255);
}

TEST_CASE("ByteText: random windows lie anywhere, differ by epoch, and never depend on the batch") {
  std::string letters;
  for (int i = 0; i < 200; ++i) letters += static_cast<char>(i);
  const io::ByteText text = io::ByteText::of(letters, {.context = 10, .held_out = 0.1, .samples = 3000});
  const io::ByteText rest =
      io::ByteText::of(letters, {.context = 10, .split = io::Split::test, .held_out = 0.1, .samples = 300});
  CHECK(text.size() == 3000);
  CHECK(text.bytes().size() == 180);
  CHECK(rest.bytes()[0] == 180);
  const auto begins = [](const io::ByteText& from, io::EpochRandom random) {
    std::vector<int64_t> indices(static_cast<size_t>(from.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i);
    const auto [inputs, targets] = from.batch(indices, random);
    const std::vector<int64_t> input = inputs.to_vector<int64_t>(), target = targets.to_vector<int64_t>();
    for (size_t i = 0; i < input.size(); ++i) {
      CHECK(target[i] == input[i] + 1);
      if (i % 10) CHECK(input[i] == input[i - 1] + 1);
    }
    std::vector<int64_t> starts;
    for (size_t i = 0; i < input.size(); i += 10) starts.push_back(input[i]);
    return starts;
  };
  const auto a = begins(text, {1, 0}), b = begins(text, {1, 1});
  CHECK(a != b);
  const std::set<int64_t> places(a.begin(), a.end());
  CHECK(*places.begin() == 0);
  CHECK(*places.rbegin() == 169);  // its targets end with 179
  CHECK(places.size() == 170);
  const auto c = begins(rest, {1, 0});
  CHECK(*std::min_element(c.begin(), c.end()) == 180);
  CHECK(*std::max_element(c.begin(), c.end()) == 189);
  CHECK(text.batch(std::vector<int64_t>{77}, {1, 1}).first[0][0].item<int64_t>() == b[77]);
}

TEST_CASE("ByteText: files, several, folders, mapped; and what can't be one") {
  TemporaryFolder folder;
  const auto put = [&](const char* name, std::string text) { write(folder / name, Bytes(text.begin(), text.end())); };
  put("b.txt", "second");
  put("a.txt", "first ");
  put("c.md", "not this");
  put("empty", "");
  const io::ByteTextOptions all{.context = 2, .windows = io::Windows::sequential, .held_out = 0};
  const auto words = [](const io::ByteText& text) { return std::string(text.bytes().begin(), text.bytes().end()); };
  CHECK(words(io::ByteText(folder / "a.txt", all)) == "first ");
  CHECK(words(io::ByteText(folder.string(), all)) == "first second");
  CHECK(words(io::ByteText(std::vector{folder / "b.txt", folder / "a.txt", folder / "empty"}, all)) == "secondfirst ");
  io::ByteTextOptions mapped = all;
  mapped.reading = io::Reading::mapped;
  const io::ByteText text(folder / "b.txt", mapped);
  fs::remove(folder / "b.txt");
  CHECK(words(text) == "second");
  CHECK(words(io::ByteText(text)) == "second");

  CHECK(contains(thrown<FileError>([&] { io::ByteText(folder / "empty", all); }),
                 "io::ByteText: '" + (folder / "empty") + "' is empty"));
  CHECK(contains(thrown<FileError>([&] { io::ByteText(folder / "none", all); }), "can't be opened: No such file"));
  CHECK(contains(thrown<ValueError>([&] {
                   io::ByteText(std::vector{folder / "a.txt", folder / "c.md"}, mapped);
                 }),
                 "2 files can't be mapped as one text"));
  CHECK(contains(
      thrown<ValueError>([&] { io::ByteText(folder / "a.txt", {.context = 6, .held_out = 0}); }),
      "'" + (folder / "a.txt") + "' has 6 bytes, of which 6 bytes are for training: a window of context 6 needs 7"));
  CHECK(contains(thrown<ValueError>([&] {
                   io::ByteText::of("abcdefghij", {.context = 2, .split = io::Split::test, .held_out = 0.1});
                 }),
                 "of which 1 byte are for testing"));
  CHECK(contains(thrown<ValueError>([&] { io::ByteText::of("abc", {.context = 0}); }), "context is 0"));
  CHECK(contains(thrown<ValueError>([&] { io::ByteText::of("abc", {.held_out = 1}); }), "held_out is 1"));
  CHECK(contains(thrown<ValueError>([&] { io::ByteText::of("abc", {.samples = -1}); }), "samples is -1"));
  CHECK(contains(thrown<ValueError>([&] { io::ByteText(std::vector<std::string>{}); }), "no files were given"));
  fs::remove(folder / "a.txt");
  CHECK(contains(thrown<FileError>([&] { io::ByteText(folder.string()); }), "no .txt file in"));
}

TEST_CASE("synthetic_text: the same for the same seed, plain ASCII, of the size that was asked for") {
  const std::string text = io::synthetic_text({.bytes = 20000, .seed = 2});
  CHECK(text.size() >= 20000);
  CHECK(text.size() < 21500);
  CHECK(text == io::synthetic_text({.bytes = 20000, .seed = 2}));
  CHECK(io::synthetic_text({.bytes = 30000, .seed = 2}).starts_with(text));
  CHECK(text.substr(0, 200) != io::synthetic_text({.bytes = 20000, .seed = 3}).substr(0, 200));
  for (char c : text) CHECK((c == '\n' || (c >= ' ' && c < 0x7f)));
  CHECK(contains(text, "Two and three are five."));
  CHECK_FALSE(contains(text, "the king see "));
  CHECK(io::synthetic_text({.bytes = 0}).empty());
  CHECK_THROWS_AS(io::synthetic_text({.bytes = -1}), ValueError);
}

TEST_CASE("TensorDataset: rows that belong together, of any dtype and layout") {
  const Tensor x = arange(12).reshape({3, 4}).transpose(0, 1), y = arange(4).to(int64);
  const io::TensorDataset data(x, y);
  CHECK(data.size() == 4);
  const auto [row, number] = data.get(2);
  CHECK(row.to_vector<float>() == std::vector<float>{2, 6, 10});
  CHECK(number.item<int64_t>() == 2);
  const auto [rows, numbers] = data.batch(std::vector<int64_t>{3, 1});
  CHECK(rows.to_vector<float>() == std::vector<float>{3, 7, 11, 1, 5, 9});
  CHECK(numbers.to_vector<int64_t>() == std::vector<int64_t>{3, 1});
  int64_t seen = 0;
  for (auto& [inputs, targets] : io::Loader(data, {.batch_size = 3, .workers = 2})) {
    CHECK(inputs.size(0) == targets.size(0));
    seen += inputs.size(0);
  }
  CHECK(seen == 4);
  for (auto& [only] : io::Loader(io::TensorDataset(y), {.batch_size = 4})) CHECK(only.shape() == Shape{4});
  const Tensor weight = ones({2, 2}, {.requires_grad = true});
  CHECK_FALSE(std::get<0>(io::TensorDataset(weight).get(0)).requires_grad());
  CHECK(std::get<0>(io::TensorDataset(zeros({2, 0})).batch(std::vector<int64_t>{1})).shape() == Shape{1, 0});
  CHECK(contains(thrown<ShapeError>([&] { io::TensorDataset(x, arange(3)); }),
                 "tensor 1 [3] has 3 rows, and tensor 0 [4, 3] has 4"));
  CHECK(contains(thrown<ShapeError>([&] { io::TensorDataset(ones({})); }), "tensor 0 is 0-d"));
  CHECK_THROWS_AS(io::TensorDataset{Tensor()}, UndefinedError);
  CHECK_THROWS_AS(data.get(4), DimensionError);
  CHECK_THROWS_AS(data.batch(std::vector<int64_t>{-1}), DimensionError);
}

TEST_CASE("ByteText: four terabytes of zeros are refused, and may be mapped") {
  TemporaryFolder folder;
  write(folder / "huge", {'a'});
  fs::resize_file(folder / "huge", uintmax_t{4} << 40);
  CHECK(contains(thrown<FileError>([&] { io::ByteText(folder / "huge"); }),
                 "has 4,398,046,511,104 bytes, more than the limit of 17,179,869,184 bytes"));
  CHECK_THROWS_AS(io::ByteText(folder / "huge", {.limits = {.file_bytes = UINT64_MAX}}), OutOfMemoryError);
  const io::ByteText mapped(folder / "huge", {.windows = io::Windows::sequential, .reading = io::Reading::mapped});
  CHECK(mapped.get(0).first.to_vector<int64_t>()[0] == 'a');
  write(folder / "one", {'a', 'b', 'c'});
  CHECK(contains(thrown<FileError>([&] {
                   io::ByteText(std::vector<std::string>{folder / "one", folder / "one"},
                                {.context = 1, .limits = {.file_bytes = 5}});
                 }),
                 "has 3 bytes, more than the limit of 2 bytes"));
}

TEST_CASE("data sets: an item that isn't there names the user's line") {
  const auto line_of = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const DimensionError& error) { return to_string(error.where()); }
    return "nothing was thrown";
  };
  const io::ByteText text = io::ByteText::of("abcdefgh", {.context = 2, .held_out = 0});
  const io::TensorDataset rows(ones({2, 3}));
  const io::SyntheticDigits digits({.count = 10});
  const std::vector<int64_t> far{99};
  const auto here = [](int line) { return "datasets_test.cpp:" + std::to_string(line); };
  CHECK(line_of([&] { text.get(99); }) == here(__LINE__));
  CHECK(line_of([&] { text.batch(far); }) == here(__LINE__));
  CHECK(line_of([&] { rows.get(99); }) == here(__LINE__));
  CHECK(line_of([&] { rows.batch(far); }) == here(__LINE__));
  CHECK(line_of([&] { digits.get(99); }) == here(__LINE__));
  CHECK(line_of([&] { digits.batch(far); }) == here(__LINE__));
  CHECK(line_of([&] { digits.label(-1); }) == here(__LINE__));
}
