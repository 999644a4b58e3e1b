// How a name is written in a version. "@" and a number at a name's end say whose it is where ranks differ
// ("generator.cpu@1"), so a name of the program's own that ends so, "weight@1", is written with one more "@" behind it:
// "weight@1@", and rank 2's as "weight@1@@2".
#pragma once

#include <string>

namespace holdfast {

std::string stored_name(std::string name);
/// The name in the program of what is stored under this one, whichever rank's it is.
std::string program_name(const std::string& stored);

/// Whether something saved is of the tracked item `owner`: its own name, a name below it, or a column's (columns.h).
bool is_of(const std::string& stored, const std::string& owner);

}  // namespace holdfast
