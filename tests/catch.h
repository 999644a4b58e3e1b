// Catch2, version 2 or 3, whichever the distribution has, with version 3's names. A version 2 program needs one file
// that defines CATCH_CONFIG_MAIN before it includes this.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_all.hpp>

using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
#else
#include <catch2/catch.hpp>
#include <string>

inline auto ContainsSubstring(const std::string& text) { return Catch::Matchers::Contains(text); }
#endif
