// How a name is written in a version. "@" and a number at a name's end denote the rank if ranks differ
// ("generator.cpu@1"). Therefore a program's name with such an end, "weight@1", is written with another "@":
// "weight@1@", and rank 2's as "weight@1@@2".
#pragma once

#include <string>

namespace holdfast {

std::string stored_name(std::string name);
/// The program's name for what is stored under this name, for any rank.
std::string program_name(const std::string& stored);

/// Whether `stored` belongs to the tracked item `owner`: its own name, a name below it, or a column's (columns.h).
bool is_of(const std::string& stored, const std::string& owner);

}  // namespace holdfast
