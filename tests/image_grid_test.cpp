// Pictures of batches, read back byte by byte.
#include "formats/image_grid.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/ops/ops.h"

using namespace tandem;

namespace {

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string temporary(const char* name) { return (std::filesystem::temp_directory_path() / name).string(); }

}  // namespace

TEST_CASE("image grid: images side by side, clamped, with black between") {
  const std::string path = temporary("tandem_image_grid.pgm");
  const Tensor images = tensor({0.f, 0.5f, 1.f, 2.f, -1.f, 0.25f}).reshape({3, 1, 1, 2});
  io::write_image_grid(path, images, {.columns = 2, .padding = 1});
  const std::string expected = std::string("P5\n7 5\n255\n") + std::string(7, '\0') +
                               std::string("\0\0\x80\0\xff\xff\0", 7) + std::string(7, '\0') +
                               std::string("\0\0\x40\0\0\0\0", 7) + std::string(7, '\0');
  CHECK(read(path) == expected);
  std::filesystem::remove(path);
}

TEST_CASE("image grid: colours, and any layout") {
  const std::string path = temporary("tandem_image_grid.ppm");
  const Tensor last = tensor({1.f, 0.f, 0.2f, 0.f, 1.f, 0.4f}).reshape({1, 1, 2, 3});  // [1, height, width, 3]
  io::write_image_grid(path, last.permute({0, 3, 1, 2}), {.padding = 0});
  CHECK(read(path) == std::string("P6\n2 1\n255\n") + std::string("\xff\0\x33\0\xff\x66", 6));
  std::filesystem::remove(path);
}

TEST_CASE("image grid: what can't be shown or written") {
  CHECK_THROWS_AS(io::write_image_grid("x.pgm", ones({2, 2})), ShapeError);
  CHECK_THROWS_AS(io::write_image_grid("x.pgm", ones({2, 2, 4, 4})), ShapeError);
  CHECK_THROWS_AS(io::write_image_grid("x.pgm", ones({2, 1, 4, 4}, {.dtype = uint8})), DTypeError);
  CHECK_THROWS_AS(io::write_image_grid("x.pgm", ones({2, 1, 4, 4}), {.columns = 0}), ValueError);
  CHECK_THROWS_AS(io::write_image_grid("/nowhere/at/all/x.pgm", ones({2, 1, 4, 4})), FileError);
}
