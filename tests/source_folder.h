// Finds the documents and configurations of the project, for tests that read them.
#pragma once

#include <string>

/// The top folder of the sources.
std::string source_folder();
