// Why a program could not be started, and what was probably meant.
#pragma once

#include <string>

namespace holdfast::tools {

/// `error` is the errno of execvp.
std::string why_not_started(const std::string& program, int error);

}  // namespace holdfast::tools
