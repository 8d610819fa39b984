// Reads IDX files, gzipped or not.
#include "formats/idx.h"

#include <zlib.h>

#include <algorithm>
#include <filesystem>

#include "formats/files.h"

namespace tandem::io {
namespace {

using tandem::detail::str;

[[noreturn]] void fail(const std::string& path, const std::string& what, Where where) {
  throw FileError(str("io::read_idx: '", path, "' ", what), where);
}

// Unpacks gzip members one after the other, as gunzip does, up to `limit` bytes.
class Gunzip {
 public:
  Gunzip(const std::string& path, const std::vector<uint8_t>& packed, Where where)
      : path_(path), packed_(packed), where_(where) {
    stream_.next_in = const_cast<Bytef*>(packed.data());
    start();
  }
  ~Gunzip() { inflateEnd(&stream_); }
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  /// Appends up to `count` bytes; fewer only at the end. Memory grows with what is there, not with `count`.
  void append(std::vector<uint8_t>& out, uint64_t count) {
    constexpr uint64_t kChunk = uint64_t{1} << 20;
    while (count > 0 && !ended_) {
      const size_t old_size = out.size(), chunk = static_cast<size_t>(std::min(count, kChunk));
      out.resize(old_size + chunk);
      stream_.next_out = out.data() + old_size;
      stream_.avail_out = static_cast<uInt>(chunk);
      while (stream_.avail_out > 0 && !ended_) step();
      out.resize(old_size + chunk - stream_.avail_out);
      count -= chunk - stream_.avail_out;
    }
  }
  bool ended() {  // looks for the end of the stream, which may follow the last byte
    std::vector<uint8_t> more;
    append(more, 1);
    return more.empty();
  }

 private:
  void start() {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) fail(path_, "can't be unpacked: zlib has no memory", where_);
  }
  size_t consumed() const { return static_cast<size_t>(stream_.next_in - packed_.data()); }

  void step() {
    const size_t left = packed_.size() - consumed();
    stream_.avail_in = static_cast<uInt>(std::min(left, size_t{1} << 30));
    const int result = inflate(&stream_, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {
      const size_t position = consumed();
      if (position == packed_.size()) {
        ended_ = true;
      } else if (packed_.size() - position >= 2 && packed_[position] == 0x1f && packed_[position + 1] == 0x8b) {
        inflateReset(&stream_);
      } else {
        fail(path_, str("has ", packed_.size() - position, " bytes after its gzip data: fetch it again"), where_);
      }
    } else if (result == Z_BUF_ERROR || (result == Z_OK && consumed() == packed_.size() && stream_.avail_out > 0)) {
      fail(path_, str("is truncated: its gzip data breaks off after ", packed_.size(), " bytes: fetch it again"),
           where_);
    } else if (result != Z_OK) {
      fail(path_,
           str("is damaged: ", stream_.msg ? stream_.msg : "its gzip data can't be unpacked", ": fetch it again"),
           where_);
    }
  }

  const std::string& path_;
  const std::vector<uint8_t>& packed_;
  Where where_;
  z_stream stream_{};
  bool ended_ = false;
};

// Checks the header of an IDX file of bytes and returns how many values must follow.
uint64_t parse_header(Idx& idx, const uint8_t* header, size_t size, int rank, Where where) {
  const std::string expected = str("an IDX file of bytes of rank ", rank, " begins with 00 00 08 0", rank);
  if (size < 4) fail(idx.path, str("has ", size, " bytes, too few for an IDX file: fetch it again"), where);
  if (header[0] != 0 || header[1] != 0 || header[2] < 0x08 || header[2] > 0x0e) {
    const char* digits = "0123456789abcdef";
    std::string begins;
    for (int i = 0; i < 4; ++i) begins += {' ', digits[header[i] >> 4], digits[header[i] & 15]};
    fail(idx.path, str("is no IDX file: it begins with", begins, ", and ", expected), where);
  }
  if (header[2] != 0x08)
    fail(idx.path, str("holds values of IDX type ", int(header[2]), ", and only bytes (8) are read: ", expected),
         where);
  if (header[3] != rank)
    fail(idx.path, str("has rank ", int(header[3]), ", need ", rank, ": are images and labels mixed up?"), where);
  if (size < 4 + 4 * static_cast<size_t>(rank))
    fail(idx.path, str("is truncated within its header, after ", size, " bytes: fetch it again"), where);
  uint64_t count = 1;
  for (int i = 0; i < rank; ++i) {
    const uint8_t* at = header + 4 + 4 * i;
    const uint64_t extent = uint64_t{at[0]} << 24 | uint64_t{at[1]} << 16 | uint64_t{at[2]} << 8 | at[3];
    idx.shape.push_back(static_cast<int64_t>(extent));
    if (__builtin_mul_overflow(count, extent, &count) || count > (uint64_t{1} << 48))
      fail(idx.path, "claims to hold more values than any file can: its header is damaged, fetch it again", where);
  }
  return count;
}

void check_length(const std::string& path, uint64_t values, uint64_t needed, Where where) {
  if (values < needed)
    fail(path, str("is truncated: its header promises ", needed, " values, and ", values, " are there: fetch it again"),
         where);
}

}  // namespace

Idx read_idx(const std::string& path, int rank, Limits limits, Where where) {
  const std::vector<uint8_t> bytes = InputFile("io::read_idx", path, where).read_all(limits);
  const size_t header_size = 4 + 4 * static_cast<size_t>(rank);
  Idx idx{path, {}, {}};
  if (bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b) {
    Gunzip gunzip(path, bytes, where);
    std::vector<uint8_t> header;
    gunzip.append(header, header_size);
    const uint64_t count = parse_header(idx, header.data(), header.size(), rank, where);
    if (count > limits.unpacked_bytes)
      fail(path,
           str("would unpack to ", bytes_text(count), ", more than the limit of ", bytes_text(limits.unpacked_bytes),
               ": if you trust it, raise io::Limits::unpacked_bytes"),
           where);
    gunzip.append(idx.values, count);
    check_length(path, idx.values.size(), count, where);
    if (!gunzip.ended())
      fail(path, str("has bytes after the ", count, " values that its header promises: fetch it again"), where);
  } else {
    const uint64_t count = parse_header(idx, bytes.data(), bytes.size(), rank, where);
    const uint64_t there = bytes.size() - header_size;
    check_length(path, there, count, where);
    if (there > count)
      fail(path,
           str("has ", there - count, " bytes after the ", count, " values that its header promises: fetch it again"),
           where);
    idx.values.assign(bytes.begin() + static_cast<std::ptrdiff_t>(header_size), bytes.end());
  }
  return idx;
}

std::string find_idx(const std::string& directory, const std::string& name, Where where) {
  const std::filesystem::path base(directory);
  std::error_code error;
  for (const std::string& candidate : {name, name + ".gz"})
    if (std::filesystem::exists(base / candidate, error)) return (base / candidate).string();
  const char* why = std::filesystem::is_directory(base, error) ? "" : " (there is no such directory)";
  throw FileError(str("io::find_idx: neither ", name, " nor ", name, ".gz is in '", directory, "'", why,
                      ": give the folder that holds the four files of MNIST, or use io::SyntheticDigits"),
                  where);
}

}  // namespace tandem::io
