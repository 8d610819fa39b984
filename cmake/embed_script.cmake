# Writes OUTPUT, a C++ file that holds the text of FILES (paths below ROOT). The text goes in as arrays of
# bytes: string literals have limits of length, and no text can break out of a list of numbers.
set(arrays "")
set(cases "")
set(index 0)
foreach(path IN LISTS FILES)
  file(READ ${ROOT}/${path} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "// ${path}\nconst unsigned char text_${index}[] = {\n${bytes}0x00};\n\n")
  string(APPEND cases "    {\"${path}\", text_${index}},\n")
  math(EXPR index "${index} + 1")
endforeach()
string(APPEND cases "    {{}, nullptr},\n")

set(text "// Made by cmake/embed_script.cmake: sources which the code generators paste into what they emit.
#include \"core/error.h\"
#include \"graph/codegen/embedded.h\"

namespace tandem::embedded {
namespace {

${arrays}struct Entry {
  std::string_view name;
  const unsigned char* text;
};

constexpr Entry entries[] = {
${cases}};

}  // namespace

const char* source(std::string_view name) {
  for (const Entry& entry : entries)
    if (entry.text && entry.name == name) return reinterpret_cast<const char*>(entry.text);
  TANDEM_ASSERT(false, \"no source is embedded by the name \", name, \" (see cmake/embed.cmake)\");
}

}  // namespace tandem::embedded
")
file(WRITE ${OUTPUT} "${text}")
