// The parts of fmt that are not templates. LibTorch ships fmt's headers without its library, so they are normally used
// with FMT_HEADER_ONLY, which costs 3 seconds of compile time in every source file. The instantiations are those of
// fmt's own src/format.cc that char needs; fmt 12 (LibTorch 2.11 to 2.15) declares them.
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE

template FMT_API locale_ref::locale_ref(const std::locale& locale);
template FMT_API auto locale_ref::get<std::locale>() const -> std::locale;

namespace detail {

template FMT_API auto thousands_sep_impl<char>(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;

}  // namespace detail
FMT_END_NAMESPACE
