// safetensors: what Python writes and reads, all that a damaged file can be, atomic writes, nn::save and nn::load.
#include "formats/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>

#include "files.h"
#include "tandem.h"

using namespace tandem;
using namespace file_tests;

namespace {

Bytes text_bytes(std::string_view text) { return Bytes(text.begin(), text.end()); }

// A file with this header and this much data, counting from 0.
Bytes file_of(const std::string& header, size_t data_size, uint64_t length = 0) {
  if (length == 0) length = header.size();
  Bytes bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<uint8_t>(length >> shift));
  bytes = bytes + text_bytes(header);
  for (size_t i = 0; i < data_size; ++i) bytes.push_back(static_cast<uint8_t>(i));
  return bytes;
}

std::string complaint(const Bytes& bytes) {
  TemporaryFolder folder;
  write(folder / "file", bytes);
  const std::string text = thrown<FileError>([&] { io::load_safetensors(folder / "file"); });
  CHECK(contains(text, "tandem::FileError: io::load_safetensors: '" + (folder / "file") + "' "));
  CHECK(contains(text, "safetensors_test.cpp:"));
  return text;
}
std::string complaint(const std::string& header, size_t data_size = 0) { return complaint(file_of(header, data_size)); }

template <class T> Bytes raw(const Tensor& tensor) {
  const auto values = tensor.contiguous().data<T>();
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return Bytes(bytes, bytes + values.size_bytes());
}
Bytes raw(const Tensor& tensor) {
  return visit_dtype(tensor.dtype(), [&]<class T>() { return raw<T>(tensor.detach()); });
}

struct Net {
  nn::Linear hidden{3, 2};
  Tensor running_mean = full({2}, 0.5);
  Tensor steps = tensor<int64_t>(int64_t{3});
};
std::vector<Bytes> values_of(const Net& net) {
  return {raw(net.hidden.weight), raw(net.hidden.bias), raw(net.running_mean), raw(net.steps)};
}

struct Tied {
  Tensor embedding = randn({4, 2});
  Tensor between = ones({1});
  Tensor output = embedding;
};

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  return names;
}

// Written by safetensors 0.8.0 for Python: safetensors.numpy.save({'hidden.weight': float32 [[1, 2, 3], [4, 5, 6]], 'steps': int64
// 7, 'mask': [True, False, True], 'bytes': uint8 [1, 2, 255], 'half': float16 [1.5, -2], 'empty': float64 of shape [0, 3]},
// metadata={'format': 'np', 'naïve': 'é\n"'}).
constexpr std::string_view kFromPython(
    "\x98\x01\x00\x00\x00\x00\x00\x00{\"__metadata__\":{\"format\":\"np\",\"na\xc3\xafve\":\"\xc3\xa9\\n\\\"\"},"
    "\"steps\":{\"dtype\":\"I64\","
    "\"shape\":[],\"data_offsets\":[0,8]},\"empty\":{\"dtype\":\"F64\",\"shape\":[0,3],\"data_offsets\":[8,8]},"
    "\"hidden.weight\":{"
    "\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},\"half\":{\"dtype\":\"F16\",\"shape\":[2],\"data_"
    "offsets\":[32,36]},"
    "\"bytes\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[36,39]},\"mask\":{\"dtype\":\"BOOL\",\"shape\":[3],"
    "\"data_offsets\":"
    "[39,42]}}\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@"
    "\x00\x00\xc0@\x00>\x00\xc0\x01"
    "\x02\xff\x01\x00\x01",
    458);

}  // namespace

TEST_CASE("safetensors: what Python wrote is read") {
  TemporaryFolder folder;
  write(folder / "python", text_bytes(kFromPython));
  const io::Safetensors file = io::load_safetensors(folder / "python");
  REQUIRE(file.tensors.size() == 6);
  CHECK(file.tensors[0].name == "steps");
  CHECK(file.find("steps").shape() == Shape{});
  CHECK(file.find("steps").item<int64_t>() == 7);
  CHECK(file.find("hidden.weight").shape() == Shape{2, 3});
  CHECK(file.find("hidden.weight").to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(file.find("half").dtype() == float16);
  CHECK(file.find("half").to(float32).to_vector<float>() == std::vector<float>{1.5, -2});
  CHECK(file.find("bytes").to_vector<uint8_t>() == std::vector<uint8_t>{1, 2, 255});
  CHECK(file.find("mask").to_vector<bool>() == std::vector<bool>{true, false, true});
  CHECK(file.find("empty").shape() == Shape{0, 3});
  CHECK_FALSE(file.find("nothing").defined());
  CHECK(file.metadata == std::map<std::string, std::string>{{"format", "np"}, {"naïve", "é\n\""}});
}

TEST_CASE("safetensors: the bytes of a written file, as Python's reader wants them") {
  TemporaryFolder folder;
  io::save_safetensors(
      folder / "file",
      std::vector<nn::NamedTensor>{{"b", tensor<uint8_t>({uint8_t{1}, uint8_t{2}})}, {"a", tensor({1.f})}},
      {{"format", "pt"}});
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]},\"a\":{"
      "\"dtype\":\"F32\",\"shape\":[1],"
      "\"data_offsets\":[0,4]}}";
  const size_t padded = (header.size() + 7) / 8 * 8;
  CHECK(bytes_of(folder / "file") ==
        file_of(header + std::string(padded - header.size(), ' '), 0) + Bytes{0, 0, 0x80, 0x3f, 1, 2});
}

TEST_CASE("safetensors: every dtype, empty, 0-d, strided and rank 8 come back as they were") {
  TemporaryFolder folder;
  std::vector<nn::NamedTensor> tensors;
  const Tensor numbers = (arange(24) * 0.37 - 3).reshape({2, 3, 4});
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    tensors.push_back({std::string("plain.") + std::string(name_of(dtype)), numbers.to(dtype)});
    tensors.push_back(
        {std::string("strided.") + std::string(name_of(dtype)), numbers.to(dtype).transpose(0, 2).slice(0, 0, 4, 2)});
    tensors.push_back({std::string("empty.") + std::string(name_of(dtype)), zeros({3, 0, 2}, {.dtype = dtype})});
    tensors.push_back({std::string("number.") + std::string(name_of(dtype)), ones({}, {.dtype = dtype})});
  }
  tensors.push_back({"", ones({1, 2, 1, 2, 1, 2, 1, 2})});
  tensors.push_back({"ключ \"quoted\"\n", ones({1})});
  io::save_safetensors(folder / "file", tensors);
  const io::Safetensors file = io::load_safetensors(folder / "file");
  REQUIRE(file.tensors.size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    CAPTURE(tensors[i].name);
    CHECK(file.tensors[i].name == tensors[i].name);
    CHECK(file.tensors[i].tensor.dtype() == tensors[i].tensor.dtype());
    CHECK(file.tensors[i].tensor.shape() == tensors[i].tensor.shape());
    CHECK(raw(file.tensors[i].tensor) == raw(tensors[i].tensor));
  }
  io::save_safetensors(folder / "none", {});
  CHECK(io::load_safetensors(folder / "none").tensors.empty());
}

TEST_CASE("safetensors: files that are too short, too long or of another kind") {
  const std::string a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  CHECK(contains(complaint(Bytes{}), "has 0 bytes, too few"));
  CHECK(contains(complaint(Bytes{1, 0, 0}), "has 3 bytes, too few"));
  CHECK(contains(complaint(file_of(a, 0, 100'000'001)),
                 "is no safetensors file: its header would have 100,000,001 bytes, and 100,000,000 bytes are allowed"));
  CHECK(contains(complaint(file_of(a, 0, ~uint64_t{0})),
                 "is no safetensors file: its header would have 18,446,744,073,709,551,615 bytes"));
  CHECK(contains(complaint(file_of(a, 4, 1000)), "is truncated: its header has 1,000 bytes, and 57 bytes follow"));
  CHECK(contains(complaint(a, 3),
                 "is truncated or damaged: its tensor 'a' lies at bytes 0 to 4 of the data, and there are 3"));
  CHECK(contains(complaint(a, 5), "has 5 bytes of data, and its tensors 4"));
  CHECK(contains(complaint(file_of("", 0)), "doesn't begin with {"));
  CHECK(contains(complaint("[]"), "doesn't begin with {"));
  CHECK(contains(complaint(" " + a, 4), "doesn't begin with {"));
  TemporaryFolder folder;
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(folder / "none"); }), "can't be opened: No such file"));
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(folder.string()); }), "is a directory"));
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors("/dev/zero"); }), "is no regular file"));
}

TEST_CASE("safetensors: headers that aren't what the format says") {
  const auto one = [](const std::string& fields, size_t data_size = 4) {
    return complaint("{\"a\":{" + fields + "}}", data_size);
  };
  CHECK(contains(complaint("{\"a\""), "has a header that is no JSON, at byte 5"));
  CHECK(contains(complaint("{} {"), "is no JSON"));
  CHECK(contains(complaint(std::string("{}\0x", 4)), "has a zero byte in its header, at byte 2"));
  CHECK(contains(
      complaint("{\"\xff\":{}}"),
      "is no JSON, at byte 3 of it: syntax error while parsing object key - invalid string: ill-formed UTF-8"));
  CHECK(contains(complaint("{\"a\":3}"), "'a' is described by a number"));
  CHECK(contains(complaint("{\"a\":null}"), "'a' is described by null"));
  CHECK(contains(complaint("{\"a\":{}}"), "'a' has no dtype"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4])"), "'a' has no data_offsets"));
  CHECK(contains(one(R"("dtype":"U8","data_offsets":[0,4])"), "'a' has no shape"));
  CHECK(contains(one(R"("dtype":"U16","shape":[2],"data_offsets":[0,4])"),
                 "'a' is of dtype 'U16', which Tandem doesn't have"));
  CHECK(contains(one(R"("dtype":8,"shape":[4],"data_offsets":[0,4])"), "has a number for a dtype"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"), "has the number '4.0' in its shape"));
  CHECK(contains(one(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"), "has a negative number in its shape"));
  CHECK(contains(one(R"("dtype":"U8","shape":[[4]],"data_offsets":[0,4])"), "has an array in its shape"));
  CHECK(contains(one(R"("dtype":"U8","shape":"4","data_offsets":[0,4])"), "has a string in its shape"));
  CHECK(contains(one(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4])"), "has more than 8 dims"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4],"data_offsets":[0])"), "has 1 data_offsets, need 2"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])"), "more than 2 data_offsets"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"), "lies at bytes 4 to 0"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615])"),
                 "lies at bytes 0 to 18446744073709551615"));
  CHECK(contains(one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1)"), "has a field 'x'"));
  CHECK(contains(one(R"("dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4])"), "has its dtype twice"));
  CHECK(contains(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "float32[2], needs 8 bytes, and has 4"));
  CHECK(contains(one(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])", 0),
                 "more elements than can be counted"));
  CHECK(contains(one(R"("dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0])", 0),
                 "more elements than can be counted"));
  CHECK(contains(one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0])", 0),
                 "which no tensor can have"));
  CHECK(
      contains(complaint(std::string(1, '{') + R"("a":)" + std::string(200000, '[')), "'a' is described by an array"));
  CHECK(contains(one(R"("dtype":"BOOL","shape":[4],"data_offsets":[0,4])"),
                 "its bool tensor 'a' has the byte 2 at 2, need 0 or 1"));

  const auto two = [](const char* first, const char* second, size_t data_size) {
    return complaint(std::string(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)") + first +
                         R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + second + "}}",
                     data_size);
  };
  CHECK(contains(two("[0,2]", "[3,5]", 5), "'b' begins at byte 3 of the data, and the one before it ends at 2"));
  CHECK(contains(two("[1,3]", "[0,2]", 3), "'a' begins at byte 1 of the data, and the one before it ends at 2"));
  CHECK(contains(two("[1,3]", "[3,5]", 5), "'a' begins at byte 1 of the data, and the one before it ends at 0"));
  CHECK(contains(
      complaint(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2),
      "has the name 'a' twice"));
  CHECK(contains(complaint(R"({"__metadata__":{},"__metadata__":{}})"), "has the name '__metadata__' twice"));
  CHECK(contains(complaint(R"({"__metadata__":{"k":"1","k":"2"}})"), "has the metadata 'k' twice"));
  CHECK(contains(complaint(R"({"__metadata__":{"k":1}})"),
                 "has a number in its __metadata__, which maps strings to strings"));
  CHECK(contains(complaint(R"({"__metadata__":"k"})"), "has a string in its __metadata__"));
}

TEST_CASE("safetensors: names that can't be written") {
  TemporaryFolder folder;
  const auto refused = [&](const std::vector<nn::NamedTensor>& tensors) {
    const std::string text = thrown<Error>([&] { io::save_safetensors(folder / "file", tensors); });
    CHECK(names_in(folder.string()).empty());
    return text;
  };
  CHECK(contains(refused({{"a", ones({1})}, {"a", ones({1})}}),
                 "ValueError: io::save_safetensors: two tensors are called 'a'"));
  CHECK(contains(refused({{"__metadata__", ones({1})}}), "can't be called __metadata__"));
  CHECK(contains(refused({{"\xff", ones({1})}}), "is not UTF-8"));
  CHECK(contains(refused({{"a", Tensor()}}), "UndefinedError: io::save_safetensors: 'a' is an undefined Tensor"));
  auto step = compile([&](const Tensor& x) {
    io::save_safetensors(folder / "file", std::vector<nn::NamedTensor>{{"x", x}});
    return x;
  });
  CHECK(contains(thrown<TraceError>([&] { step(ones({1})); }), "can't be written by a graph"));
}

TEST_CASE("safetensors: a write that fails leaves the old file and nothing else") {
  TemporaryFolder folder;
  const std::string path = folder / "file";
  write(path, {1, 2, 3});
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string text = thrown<FileError>([&] {
    io::save_safetensors(path, std::vector<nn::NamedTensor>{{"a", ones({10000})}});
  });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, previous);
  CHECK(contains(text, "'" + path + "' can't be written: File too large"));
  CHECK(names_in(folder.string()) == std::vector<std::string>{"file"});
  CHECK(bytes_of(path) == Bytes{1, 2, 3});

  io::save_safetensors(path, std::vector<nn::NamedTensor>{{"a", ones({1})}});
  CHECK(names_in(folder.string()) == std::vector<std::string>{"file"});
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));  // as they were
  CHECK(contains(thrown<FileError>([&] { io::save_safetensors(folder / "none/file", {}); }),
                 "its folder doesn't exist, make it first"));
  CHECK(contains(thrown<FileError>([&] { io::save_safetensors(folder.string(), {}); }), "is a directory"));
  fs::create_symlink("file", folder / "link");
  io::save_safetensors(folder / "link", {});
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(io::load_safetensors(path).tensors.empty());
}

TEST_CASE("nn::save and nn::load: parameters and buffers, in place") {
  TemporaryFolder folder;
  Net saved, loaded;
  saved.running_mean.assign(full({2}, 0.25));
  saved.steps.assign(tensor<int64_t>(int64_t{9}));
  nn::save(saved, folder / "net.safetensors");
  const io::Safetensors file = io::load_safetensors(folder / "net.safetensors");
  std::vector<std::string> names;
  for (const nn::NamedTensor& named : file.tensors) names.push_back(named.name);
  CHECK(names == std::vector<std::string>{"hidden.weight", "hidden.bias", "running_mean", "steps"});
  const Tensor handle = loaded.hidden.weight;
  CHECK(values_of(loaded) != values_of(saved));
  nn::load(loaded, folder / "net.safetensors");
  CHECK(values_of(loaded) == values_of(saved));
  CHECK(raw(handle) == raw(saved.hidden.weight));
  CHECK(loaded.hidden.weight.requires_grad());
  CHECK_FALSE(loaded.running_mean.requires_grad());
}

TEST_CASE("nn::load: everything that doesn't fit is named, and nothing is changed") {
  TemporaryFolder folder;
  const std::string path = folder / "net";
  Net net;
  const std::vector<Bytes> before = values_of(net);
  io::save_safetensors(path, std::vector<nn::NamedTensor>{{"hidden.weight", ones({3, 2})},
                                                          {"running_mean", ones({2}, {.dtype = float64})},
                                                          {"steps", tensor<int64_t>(int64_t{1})},
                                                          {"head.weight", ones({1})}});
  const std::string text = thrown<FileError>([&] { nn::load(net, path); });
  CHECK(contains(text, "nn::load: '" + path +
                           "' doesn't fit the model: it lacks: hidden.bias; it also has: head.weight; it has: "
                           "hidden.weight float32[3, 2] where "
                           "float32[2, 3] is needed, running_mean float64[2] where float32[2] is needed"));
  CHECK(contains(text, "safetensors_test.cpp:"));
  CHECK(values_of(net) == before);
  std::vector<nn::NamedTensor> many;
  for (int i = 0; i < 100; ++i) many.push_back({"layer" + std::to_string(i), ones({1})});
  io::save_safetensors(path, many);
  CHECK(contains(thrown<FileError>([&] { nn::load(net, path); }), "layer19 and 80 more"));
}

TEST_CASE("nn::save and nn::load: tied weights stand once in the file, and stay tied") {
  TemporaryFolder folder;
  Tied saved, loaded;
  nn::save(saved, folder / "tied");
  CHECK(io::load_safetensors(folder / "tied").tensors.size() == 2);
  nn::load(loaded, folder / "tied");
  CHECK(raw(loaded.output) == raw(saved.embedding));
  CHECK(loaded.output.impl() == loaded.embedding.impl());

  const Tensor other = ones({4, 2});
  io::save_safetensors(folder / "last", std::vector<nn::NamedTensor>{{"output", other}, {"between", ones({1})}});
  nn::load(loaded, folder / "last");
  CHECK(raw(loaded.embedding) == raw(other));
  io::save_safetensors(folder / "both",
                       std::vector<nn::NamedTensor>{{"output", other}, {"between", ones({1})}, {"embedding", other}});
  nn::load(loaded, folder / "both");
  io::save_safetensors(folder / "torn", std::vector<nn::NamedTensor>{
                                            {"output", other}, {"between", ones({1})}, {"embedding", other * 2}});
  CHECK(contains(thrown<FileError>([&] { nn::load(loaded, folder / "torn"); }),
                 "tied weights differ in it: embedding = output"));
  io::save_safetensors(folder / "none", std::vector<nn::NamedTensor>{{"between", ones({1})}});
  CHECK(contains(thrown<FileError>([&] { nn::load(loaded, folder / "none"); }), "it lacks: embedding = output"));
}

TEST_CASE(
    "nn::load: a file cut off anywhere, or with any one byte changed, is an error or changes what it says, never half "
    "a model") {
  TemporaryFolder folder;
  const std::string path = folder / "net";
  Net saved, loaded;
  nn::save(saved, path);
  const Bytes whole = bytes_of(path);
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof header);
  const std::vector<Bytes> good = values_of(saved), before = values_of(loaded);
  int refused = 0, accepted = 0;
  const auto attempt = [&](const Bytes& bytes) {
    write(path, bytes);
    try {
      nn::load(loaded, path);
      ++accepted;
      return true;
    } catch (const Error&) {
      ++refused;
      CHECK(values_of(loaded) == before);
      return false;
    }
  };
  for (size_t length = 0; length < whole.size(); ++length) CHECK_FALSE(attempt(first(whole, length)));
  CHECK_FALSE(attempt(whole + Bytes{0}));
  write(path, whole);
  nn::load(loaded, path);
  CHECK(values_of(loaded) == good);
  for (size_t i = 0; i < whole.size(); ++i) {
    for (uint8_t change : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      Bytes damaged = whole;
      damaged[i] ^= change;
      Net fresh = Net();
      const std::vector<Bytes> fresh_values = values_of(fresh);
      write(path, damaged);
      try {
        nn::load(fresh, path);
        ++accepted;
        size_t differing = 0;
        const std::vector<Bytes> read = values_of(fresh);
        for (size_t t = 0; t < read.size(); ++t)
          for (size_t b = 0; b < read[t].size(); ++b) differing += read[t][b] != good[t][b];
        CHECK(differing == (i < 8 + header ? 0u : 1u));  // there is no checksum: a changed value is a value
      } catch (const FileError&) {
        ++refused;
        CHECK(i < 8 + header);
        CHECK(values_of(fresh) == fresh_values);
      }
    }
  }
  CHECK(accepted > 0);
  CHECK(refused > static_cast<int>(whole.size()));
}

TEST_CASE("safetensors: only regular files are replaced") {
  TemporaryFolder folder;
  const auto refused = [&](const std::string& path, const std::string& reason) {
    CHECK(contains(thrown<FileError>([&] { io::save_safetensors(path, {}); }), "'" + path + "' " + reason));
  };
  REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
  refused(folder / "fifo", "is a FIFO, and only regular files are replaced");
  CHECK(fs::is_fifo(folder / "fifo"));
  refused("/dev/null", "is a device, and only regular files are replaced");
  CHECK(fs::is_character_file("/dev/null"));
  fs::create_symlink("nowhere", folder / "dangling");
  refused(folder / "dangling", "is a link to what can't be found");
  CHECK(fs::is_symlink(folder / "dangling"));
  fs::create_symlink("round", folder / "round");
  refused(folder / "round", "is a link to what can't be found");
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(folder / "fifo"); }), "is no regular file"));
  fs::create_symlink("/dev/null", folder / "to_device");
  CHECK(contains(thrown<FileError>([&] { io::save_safetensors(folder / "to_device", {}); }), "is a device"));
}

TEST_CASE("safetensors: names as long as the file system allows, of any letters") {
  TemporaryFolder folder;
  for (const size_t length : {200, 245, 255}) {
    const std::string path = folder / std::string(length, 'n');
    io::save_safetensors(path, std::vector<nn::NamedTensor>{{"a", ones({3})}});
    CHECK(io::load_safetensors(path).tensors.size() == 1);
  }
  std::string accents;
  for (int i = 0; i < 127; ++i) accents += "\xc3\xa9";
  io::save_safetensors(folder / accents, {});
  CHECK(names_in(folder.string()).size() == 4);
}

TEST_CASE("safetensors: what killed saves left goes with the next save of that name, what living ones write stays") {
  TemporaryFolder folder;
  const std::string path = folder / "file";
  for (int i = 0; i < 5; ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      io::AtomicFile file("test", path, Where::current());
      file.write("half", 4);
      raise(SIGKILL);
    }
    REQUIRE(waitpid(child, nullptr, 0) == child);
  }
  write(folder / "other.tmp-4194304-0000abcd-1", {1});
  write(folder / "file.tmp-notes", {1});
  io::AtomicFile living("test", path, Where::current());
  CHECK(names_in(folder.string()).size() == 3);  // those of the killed are gone already
  io::save_safetensors(path, {});
  CHECK(names_in(folder.string()).size() == 4);
  living.write("whole", 5);
  living.commit();
  CHECK(bytes_of(path).size() == 5);
  CHECK(names_in(folder.string()).size() == 3);
}

TEST_CASE("safetensors: limits are looked at before memory is taken") {
  TemporaryFolder folder;
  const std::string path = folder / "file";
  io::save_safetensors(path, std::vector<nn::NamedTensor>{{"a", ones({30})}, {"b", ones({30})}});
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(path, {.file_bytes = 100}); }),
                 "more than the limit of 100 bytes: if you trust it, raise io::Limits::file_bytes"));
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(path, {.tensors = 1}); }),
                 "has more tensors than the limit of 1"));
  CHECK(io::load_safetensors(path, {.tensors = 2}).tensors.size() == 2);

  // Four terabytes of zeros, which no disk holds.
  const std::string header = R"({"weight":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}})";
  const uint64_t length = header.size();
  std::ofstream huge(folder / "huge", std::ios::binary);
  huge.write(reinterpret_cast<const char*>(&length), 8) << header;
  huge.close();
  fs::resize_file(folder / "huge", 8 + length + (uint64_t{4} << 40));
  CHECK(contains(thrown<FileError>([&] { io::load_safetensors(folder / "huge"); }),
                 "more than the limit of 17,179,869,184 bytes"));
  nn::Linear model(3, 3);
  CHECK(contains(thrown<FileError>([&] { nn::load(model, folder / "huge"); }),
                 "it has: weight float32[1099511627776] where float32[3, 3] is needed"));
}
