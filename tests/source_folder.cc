#include "source_folder.h"

std::string source_folder() { return HOLDFAST_SOURCE_FOLDER; }
