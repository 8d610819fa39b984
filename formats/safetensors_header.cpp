// The header of a safetensors file. It comes from strangers, so it is read event by event: memory grows with what is
// really there, and whatever the format doesn't allow ends the reading at once.
#include "formats/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

namespace tandem::io::detail {
namespace {

using tandem::detail::str;
using Fail = std::function<void(const std::string&)>;

constexpr std::pair<const char*, DType> kDTypes[] = {
    {"F32", DType::float32}, {"F64", DType::float64}, {"F16", DType::float16}, {"BF16", DType::bfloat16},
    {"I32", DType::int32},   {"I64", DType::int64},   {"I16", DType::int16},   {"I8", DType::int8},
    {"U8", DType::uint8},    {"BOOL", DType::bool_}};

// A name as it can be printed: it may be long, or hold line breaks.
std::string shown(const std::string& name) {
  std::string text = "'";
  for (char c : name.substr(0, 100)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text + (name.size() > 100 ? "…'" : "'");
}

// Receives the events of nlohmann's parser, which checks the JSON itself, UTF-8 included.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  Reader(const Fail& fail, const Limits& limits) : fail_(fail), limits_(limits) {}
  SafetensorsHeader header;

  bool start_object(std::size_t) override {
    switch (at_) {
      case At::start: return to(At::names);
      case At::entry: return to(At::fields);
      case At::metadata: return to(At::metadata_keys);
      default: return unexpected("an object");
    }
  }
  bool end_object() override {
    if (at_ == At::names) return to(At::end);
    if (at_ == At::metadata_keys) return to(At::names);
    if (!has_dtype_ || !has_shape_ || offsets_.size() != 2)
      return wrong(str("has no ", !has_dtype_ ? "dtype" : !has_shape_ ? "shape" : "data_offsets"));
    entry_.shape = Shape(std::span<const int64_t>(shape_));
    entry_.begin = offsets_[0], entry_.end = offsets_[1];
    header.entries.push_back(std::move(entry_));
    return to(At::names);
  }
  bool key(string_t& name) override {
    if (at_ == At::names) {
      if (!names_.insert(name).second) return fail(str("has the name ", shown(name), " twice in its header"));
      if (name == "__metadata__") return to(At::metadata);
      if (header.entries.size() >= limits_.tensors)
        return fail(str("has more tensors than the limit of ", limits_.tensors,
                        ": if you trust it, raise io::Limits::tensors"));
      entry_ = {.name = name, .dtype = {}, .shape = {}};
      has_dtype_ = has_shape_ = has_offsets_ = false;
      shape_.clear(), offsets_.clear();
      return to(At::entry);
    }
    if (at_ == At::metadata_keys) {
      if (header.metadata.contains(name)) return fail(str("has the metadata ", shown(name), " twice in its header"));
      metadata_key_ = name;
      return to(At::metadata_value);
    }
    const auto first = [&](bool& seen, At next) {
      return std::exchange(seen, true) ? wrong(str("has its ", name, " twice")) : to(next);
    };
    if (name == "dtype") return first(has_dtype_, At::dtype);
    if (name == "shape") return first(has_shape_, At::shape);
    if (name == "data_offsets") return first(has_offsets_, At::offsets);
    return wrong(str("has a field ", shown(name), ", and only dtype, shape and data_offsets are known"));
  }
  bool string(string_t& value) override {
    if (at_ == At::metadata_value) {
      header.metadata.emplace(metadata_key_, std::move(value));
      return to(At::metadata_keys);
    }
    if (at_ != At::dtype) return unexpected("a string");
    const auto* const known =
        std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& pair) { return value == pair.first; });
    if (known == std::end(kDTypes))
      return wrong(str("is of dtype ", shown(value),
                       ", which Tandem doesn't have: it has F32, F64, F16, BF16, I32, I64, U8 and BOOL"));
    entry_.dtype = known->second;
    return to(At::fields);
  }
  bool start_array(std::size_t) override {
    if (at_ == At::shape) return to(At::extents);
    if (at_ == At::offsets) return to(At::offset_values);
    return unexpected("an array");
  }
  bool end_array() override {
    if (at_ == At::offset_values && offsets_.size() != 2)
      return wrong(str("has ", offsets_.size(), " data_offsets, need 2"));
    return to(At::fields);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::extents) {
      if (shape_.size() == static_cast<size_t>(kMaxRank))
        return wrong(str("has more than ", kMaxRank, " dims, which Tandem's tensors don't have"));
      if (value > static_cast<uint64_t>(INT64_MAX))
        return wrong(str("has an extent of ", value, ", which no tensor can have"));
      shape_.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (at_ == At::offset_values) {
      if (offsets_.size() == 2) return wrong("has more than 2 data_offsets");
      offsets_.push_back(value);
      return true;
    }
    return unexpected("a number");
  }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override { return unexpected("the number " + shown(text)); }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string text = error.what();  // "[json.exception…] parse error at line 1, column 5: reason"
    const size_t reason = text.find(": ");
    return fail(str("has a header that is no JSON, at byte ", position,
                    " of it: ", reason == text.npos ? text : text.substr(reason + 2)));
  }

 private:
  enum class At {
    start,
    names,
    entry,
    fields,
    dtype,
    shape,
    extents,
    offsets,
    offset_values,
    metadata,
    metadata_keys,
    metadata_value,
    end
  };
  bool to(At next) {
    at_ = next;
    return true;
  }
  bool fail(const std::string& what) {
    fail_(what);
    return false;
  }
  bool wrong(const std::string& what) { return fail(str("is damaged: its tensor ", shown(entry_.name), " ", what)); }
  bool unexpected(const std::string& found) {
    switch (at_) {
      case At::start: return fail(str("has a header that is ", found, ", need an object"));
      case At::metadata:
      case At::metadata_value: return fail(str("has ", found, " in its __metadata__, which maps strings to strings"));
      case At::names:
      case At::metadata_keys:
      case At::end: return fail(str("has ", found, " in its header where none belongs"));
      case At::entry:
      case At::fields: return wrong(str("is described by ", found, ", need {dtype, shape, data_offsets}"));
      case At::dtype: return wrong(str("has ", found, " for a dtype, need a string"));
      case At::shape:
      case At::extents: return wrong(str("has ", found, " in its shape, need whole numbers of 0 or more"));
      case At::offsets:
      case At::offset_values: break;
    }
    return wrong(str("has ", found, " in its data_offsets, need two whole numbers of 0 or more"));
  }

  const Fail& fail_;
  const Limits& limits_;
  At at_ = At::start;
  std::set<std::string> names_;
  std::string metadata_key_;
  SafetensorsEntry entry_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::vector<int64_t> shape_;
  std::vector<uint64_t> offsets_;
};

// The bytes of a tensor; nothing if they, or its strides, can't be counted.
std::optional<uint64_t> bytes_of(const SafetensorsEntry& entry) {
  int64_t bytes = size_of(entry.dtype);
  for (int64_t extent : entry.shape)
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes)) return {};
  return entry.shape.contains(0) ? 0 : static_cast<uint64_t>(bytes);
}

// The tensors' bytes must lie side by side from 0 to the end: nothing twice, nothing hidden between them.
void check_layout(const SafetensorsHeader& header, uint64_t data_size, const Fail& fail) {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : header.entries) {
    const std::string name = shown(entry.name);
    if (entry.begin > entry.end || entry.end > data_size)
      fail(str("is truncated or damaged: its tensor ", name, " lies at bytes ", entry.begin, " to ", entry.end,
               " of the data, and there are ", data_size));
    const std::optional<uint64_t> bytes = bytes_of(entry);
    if (!bytes) fail(str("is damaged: its tensor ", name, " ", entry.shape, " has more elements than can be counted"));
    if (*bytes != entry.end - entry.begin)
      fail(str("is damaged: its tensor ", name, ", ", tandem::name_of(entry.dtype), entry.shape, ", needs ", *bytes,
               " bytes, and has ", entry.end - entry.begin));
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  uint64_t at = 0;
  for (const SafetensorsEntry* entry : order) {
    if (entry->begin != at)
      fail(str("is damaged: its tensor ", shown(entry->name), " begins at byte ", entry->begin,
               " of the data, and the one before it ends at ", at));
    at = entry->end;
  }
  if (at != data_size)
    fail(str("has ", data_size, " bytes of data, and its tensors ", at, ": it is no whole safetensors file"));
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_size, const Fail& fail,
                                           const Limits& limits) {
  if (text.empty() || text.front() != '{') fail("is no safetensors file: its header doesn't begin with {");
  // The parser takes a zero byte for the end, and would pass over what follows.
  if (const size_t zero = text.find('\0'); zero != text.npos)
    fail(str("has a zero byte in its header, at byte ", zero, " of it"));
  Reader reader(fail, limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  check_layout(reader.header, data_size, fail);
  return std::move(reader.header);
}

std::string safetensors_header_text(const SafetensorsHeader& header, const Fail& fail) {
  const auto spelled = [&](const std::string& value, const std::string& what) {
    try {
      return nlohmann::json(value).dump();
    } catch (const nlohmann::json::exception&) {
      fail(str("the ", what, " is not UTF-8"));
      return std::string();
    }
  };
  // Only strings are Json: its objects are slow to fill, and allocate memory in their destructor, which ends the process
  // where there is none.
  std::string text = "{";
  if (!header.metadata.empty()) {
    text += "\"__metadata__\":";
    char before = '{';
    for (const auto& [key, value] : header.metadata) {
      text += std::exchange(before, ',') + spelled(key, "metadata") + ':' + spelled(value, "metadata");
    }
    text += '}';
  }
  for (const SafetensorsEntry& entry : header.entries) {
    const auto* const dtype = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                           [&](const auto& pair) { return entry.dtype == pair.second; });
    if (text.size() > 1) text += ',';
    text += spelled(entry.name, "name " + shown(entry.name)) + str(":{\"dtype\":\"", dtype->first, "\",\"shape\":[");
    for (int d = 0; d < entry.shape.size(); ++d) text += str(d ? "," : "", entry.shape[d]);
    text += str("],\"data_offsets\":[", entry.begin, ",", entry.end, "]}");
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace tandem::io::detail
