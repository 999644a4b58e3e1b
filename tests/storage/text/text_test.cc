#include "holdfast/storage/text/text.h"

#include "catch.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/formats/safetensors.h"

using namespace holdfast::storage;

TEST_CASE("errors_quote_a_short_part_of_a_text_without_control_characters") {
  CHECK(in_quotes("conv1.weight") == "\"conv1.weight\"");
  CHECK(in_quotes("größe 日本") == "\"größe 日本\"");
  CHECK(in_quotes("a\nb\x1b[31m\x7f") == "\"a\\x0ab\\x1b[31m\\x7f\"");
  CHECK(in_quotes("\xc2\x9b") == "\"\\xc2\\x9b\"");  // a control character of two bytes
  CHECK(in_quotes("\xe4") == "\"\\xe4\"");
  CHECK(excerpt(std::string(200, 'x')) == std::string(200, 'x'));
  CHECK(excerpt(std::string(201, 'x')) == std::string(200, 'x') + "… (201 bytes)");
  const std::string cut = excerpt(std::string(199, 'x') + "ö");  // never within a character
  CHECK(cut == std::string(199, 'x') + "… (201 bytes)");
  for (const std::string& text : {std::string(5'000'000, 'F'), std::string(100, '\x1b'), std::string(300, '\xff')}) {
    CHECK(excerpt(text).size() < 230);
    CHECK(is_utf8(excerpt(text)));
    CHECK_FALSE(has_control_characters(excerpt(text)));
  }
}

TEST_CASE("a_file_with_a_long_text_is_refused_with_a_short_message") {
  const std::string longest(5'000'000, 'F');
  const auto refused = [](const std::string& header) {
    std::string file(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    const auto decoded = decode_safetensors_header(file + header, 8 + header.size());
    REQUIRE_FALSE(decoded.ok());
    CHECK(decoded.status().message().size() < 1000);
    CHECK_FALSE(has_control_characters(decoded.status().message()));
  };
  const std::string rest = "\"shape\":[1],\"data_offsets\":[0,4]}}";
  refused("{\"w\":{\"dtype\":\"" + longest + "\"," + rest);
  refused("{\"w\":{\"dtype\":\"\\n\\u001b[2J\"," + rest);
  refused("{\"" + longest + "\":{\"dtype\":\"F32\"," + rest);
  refused("{\"" + longest + "\":1,\"" + longest + "\":1}");
  refused("{\"__metadata__\":{\"" + longest + "\":1}}");
}
