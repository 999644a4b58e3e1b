#include "holdfast/storage/formats/non_finite.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "catch.h"

using namespace holdfast::storage;

namespace {

template <class Word>
std::vector<std::byte> bytes_of(const std::vector<Word>& words) {
  std::vector<std::byte> bytes(words.size() * sizeof(Word));
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

std::uint64_t count(Dtype dtype, std::span<const std::byte> bytes) {
  NonFiniteCounter counter(dtype);
  counter.update(bytes);
  return counter.count();
}

template <class Word>
std::uint64_t count_all_of(Dtype dtype) {
  std::vector<Word> words;
  for (std::uint32_t word = 0; word <= std::numeric_limits<Word>::max(); ++word) {
    words.push_back(static_cast<Word>(word));
  }
  return count(dtype, bytes_of(words));
}

}  // namespace

// How many bit patterns of each type are NaN or infinite by its definition.
TEST_CASE("every_nan_and_infinity_of_the_small_types_is_counted_and_nothing_else") {
  CHECK(count_all_of<std::uint8_t>(Dtype::f8_e5m2) == 8);
  CHECK(count_all_of<std::uint8_t>(Dtype::f8_e4m3) == 2);
  CHECK(count_all_of<std::uint8_t>(Dtype::f8_e8m0) == 1);
  CHECK(count_all_of<std::uint8_t>(Dtype::f8_e4m3fnuz) == 1);
  CHECK(count_all_of<std::uint8_t>(Dtype::f8_e5m2fnuz) == 1);
  CHECK(count_all_of<std::uint16_t>(Dtype::f16) == 2 * 1024);
  CHECK(count_all_of<std::uint16_t>(Dtype::bf16) == 2 * 128);
  for (Dtype dtype : {Dtype::boolean, Dtype::u8, Dtype::i8}) CHECK(count_all_of<std::uint8_t>(dtype) == 0);
  for (Dtype dtype : {Dtype::u16, Dtype::i16}) CHECK(count_all_of<std::uint16_t>(dtype) == 0);
  const std::vector<std::byte> ones(4096, std::byte{0xff});
  for (Dtype dtype : {Dtype::u32, Dtype::i32, Dtype::u64, Dtype::i64}) CHECK(count(dtype, ones) == 0);
  CHECK(count(Dtype::f32, ones) == 1024);
  CHECK(count(Dtype::f64, ones) == 512);
  CHECK(count(Dtype::c64, ones) == 1024);
}

TEST_CASE("non_finite_floats_and_doubles_are_counted_at_every_position") {
  const auto check = [](auto one, Dtype dtype) {
    using Number = decltype(one);
    using Limits = std::numeric_limits<Number>;
    for (const std::size_t size : {1, 3, 4, 5, 1000, 5000}) {
      std::vector<Number> numbers(size, Number{1});
      const std::vector<Number> finite = {Number{0}, -Number{0}, Limits::max(), Limits::lowest(), Limits::denorm_min()};
      for (std::size_t i = 0; i < size; ++i) numbers[i] = finite[i % finite.size()];
      CHECK(count(dtype, bytes_of(numbers)) == 0);
      for (const Number odd : {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity()}) {
        for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
          auto changed = numbers;
          changed[at] = odd;
          CHECK(count(dtype, bytes_of(changed)) == 1);
        }
        CHECK(count(dtype, bytes_of(std::vector<Number>(size, odd))) == size);
      }
    }
  };
  check(1.0F, Dtype::f32);
  check(1.0F, Dtype::c64);
  check(1.0, Dtype::f64);
}

TEST_CASE("pieces_that_end_within_an_element_count_the_same") {
  std::vector<double> numbers(100, 1.0);
  for (const std::size_t at : {0, 7, 8, 50, 99}) numbers[at] = std::nan("");
  const auto bytes = bytes_of(numbers);
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16}) {
    for (std::size_t piece = 1; piece < 40; ++piece) {
      NonFiniteCounter counter(dtype);
      for (std::size_t at = 0; at < bytes.size(); at += piece) {
        counter.update(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
      }
      CHECK(counter.count() == count(dtype, bytes));
    }
  }
}
