#include "holdfast/storage/status.h"

namespace holdfast::storage {

std::string_view to_string(StatusCode code) {
  switch (code) {
    case StatusCode::ok:
      return "ok";
    case StatusCode::not_found:
      return "not_found";
    case StatusCode::already_exists:
      return "already_exists";
    case StatusCode::permission_denied:
      return "permission_denied";
    case StatusCode::read_only:
      return "read_only";
    case StatusCode::no_space:
      return "no_space";
    case StatusCode::name_too_long:
      return "name_too_long";
    case StatusCode::unreadable:
      return "unreadable";
    case StatusCode::incomplete:
      return "incomplete";
    case StatusCode::corrupt:
      return "corrupt";
    case StatusCode::misfit:
      return "misfit";
    case StatusCode::superseded:
      return "superseded";
    case StatusCode::busy:
      return "busy";
    case StatusCode::unknown:
      return "unknown";
    case StatusCode::unsupported:
      return "unsupported";
    case StatusCode::invalid:
      return "invalid";
  }
  return "?";
}

bool is_permanent(StatusCode code) { return code != StatusCode::unreadable && code != StatusCode::busy; }

}  // namespace holdfast::storage
