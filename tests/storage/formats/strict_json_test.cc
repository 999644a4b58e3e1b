#include "formats/strict_json.h"

#include <string>
#include <string_view>
#include <utility>

#include "catch.h"
#include "holdfast/storage/text/text.h"

using namespace holdfast::storage;

namespace {

Result<nlohmann::json> parse(std::string_view text, int max_depth = 8) {
  return parse_strict_json(text, max_depth, "the text");
}

}  // namespace

TEST_CASE("strict_json_reads_valid_objects") {
  const auto value =
      parse(R"({"a":[1,-2,2.5,true,null,"x\u00e9\n"],"b":{"c":{}},"":[[],{}],"big":18446744073709551615} )");
  REQUIRE(value);
  CHECK(*value == nlohmann::json::parse(
                      R"({"a":[1,-2,2.5,true,null,"xé\n"],"b":{"c":{}},"":[[],{}],"big":18446744073709551615})"));
  CHECK((*value)["big"].is_number_unsigned());
}

TEST_CASE("strict_json_refuses_with_a_sentence_and_never_throws") {
  const std::pair<std::string, std::string> table[] = {
      {"", "does not begin with '{'"},
      {"[]", "does not begin with '{'"},
      {" {}", "does not begin with '{'"},
      {"\xef\xbb\xbf{}", "does not begin with '{'"},
      {R"({"a":1,"a":2})", "has the key \"a\" twice"},
      {R"({"a":1,"\u0061":2})", "has the key \"a\" twice"},
      {R"({"b":{"a":1,"c":[{}],"a":2}})", "has the key \"a\" twice"},
      {R"({"a":1}{})", "is not valid JSON at byte"},
      {R"({"a":1} x)", "is not valid JSON at byte"},
      {R"({"a":1,})", "is not valid JSON at byte"},
      {R"({"a")", "is not valid JSON at byte"},
      {"{'a':1}", "is not valid JSON at byte"},
      {R"({"a":01})", "is not valid JSON at byte"},
      {R"({"a":NaN})", "is not valid JSON at byte"},
      {R"({"a":1e999})", "is not valid JSON at byte"},
      {R"({"a":+1})", "is not valid JSON at byte"},
      {"{/* x */}", "is not valid JSON at byte"},
      {"{\"a\":\"\xc3\"}", "is not valid JSON at byte"},
      {"{\"a\":\"\xed\xa0\x80\"}", "is not valid JSON at byte"},
      {R"({"a":"\ud800"})", "is not valid JSON at byte"},
      {"{\"a\":\"\n\"}", "is not valid JSON at byte"},
      {std::string("{}\0{}", 5), "holds a NUL at byte 2"},
  };
  for (const auto& [text, problem] : table) {
    INFO(text);
    const auto value = parse(text);
    REQUIRE_FALSE(value);
    CHECK(value.code() == StatusCode::corrupt);
    CHECK(value.status().message().rfind("the text " + problem, 0) == 0);
  }
}

TEST_CASE("strict_json_bounds_the_depth") {
  const auto nested = [](int depth) {
    std::string text = "{\"a\":";
    for (int i = 1; i < depth; ++i) text += '[';
    text += '1';
    for (int i = 1; i < depth; ++i) text += ']';
    return text + "}";
  };
  CHECK(parse(nested(8)));
  const auto deeper = parse(nested(9));
  REQUIRE_FALSE(deeper);
  CHECK(deeper.status().message() == "the text nests deeper than 8 levels");
  CHECK_FALSE(parse(nested(1000000)));
}

TEST_CASE("valid_and_invalid_utf8_are_distinguished") {
  for (const char* text : {"", "plain", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK(is_utf8(text));
  }
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x7f", "\xe0\x9f\xbf", "\xe0\xa0", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xe2\x82"}) {
    INFO(text);
    CHECK_FALSE(is_utf8(text));
  }
}
