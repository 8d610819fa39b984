// Checks of an ELF file (System V ABI, chapters 4 and 5) before it is loaded.
#include "graph/native/shared_object.h"

#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace tandem::graph {

namespace {

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  bool holds(uint64_t offset, uint64_t size) const { return offset <= bytes_.size() && size <= bytes_.size() - offset; }
  /// `count` structures that lie side by side; nothing if they don't lie within the file.
  template <class T> std::optional<std::vector<T>> read(uint64_t offset, uint64_t count) const {
    if (count > bytes_.size() / sizeof(T) || !holds(offset, count * sizeof(T))) return {};
    std::vector<T> result(count);
    if (count) std::memcpy(result.data(), bytes_.data() + offset, count * sizeof(T));
    return result;
  }

 private:
  std::string_view bytes_;
};

}  // namespace

std::string library_damage(std::string_view bytes) {
  using Header = ElfW(Ehdr);
  using Segment = ElfW(Phdr);
  using Section = ElfW(Shdr);
  using Dynamic = ElfW(Dyn);
  constexpr unsigned char native = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
  const Reader file(bytes);
  const std::string cut = "it is cut short, at " + std::to_string(bytes.size()) + " bytes";

  const auto headers = file.read<Header>(0, 1);
  if (!headers) return cut;
  const Header& header = headers->front();
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != native ||
      header.e_type != ET_DYN || header.e_phentsize != sizeof(Segment))
    return "it is no shared library";
  const auto segments = file.read<Segment>(header.e_phoff, header.e_phnum);
  if (!segments) return cut;
  if (header.e_shoff != 0 && (header.e_shentsize != sizeof(Section) ||
                              !file.holds(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Section))))
    return cut;
  for (const Segment& segment : *segments)
    if (!file.holds(segment.p_offset, segment.p_filesz)) return cut;

  // What the loader follows without a look: the table of symbols and their names.
  const auto is_loaded = [&](uint64_t address, uint64_t size) {
    for (const Segment& segment : *segments)
      if (segment.p_type == PT_LOAD && address >= segment.p_vaddr && address - segment.p_vaddr <= segment.p_filesz &&
          size <= segment.p_filesz - (address - segment.p_vaddr))
        return true;
    return false;
  };
  uint64_t symbols = 0, names = 0, names_size = 0;
  for (const Segment& segment : *segments) {
    if (segment.p_type != PT_DYNAMIC) continue;
    const auto entries = file.read<Dynamic>(segment.p_offset, segment.p_filesz / sizeof(Dynamic));
    for (const Dynamic& entry : *entries) {
      if (entry.d_tag == DT_NULL) break;
      if (entry.d_tag == DT_SYMTAB) symbols = entry.d_un.d_ptr;
      if (entry.d_tag == DT_STRTAB) names = entry.d_un.d_ptr;
      if (entry.d_tag == DT_STRSZ) names_size = entry.d_un.d_val;
    }
  }
  if (!is_loaded(symbols, sizeof(ElfW(Sym))) || names_size == 0 || !is_loaded(names, names_size))
    return "it has no table of symbols";
  return "";
}

}  // namespace tandem::graph
