#include "verb.h"
namespace holdfast::tools { void add_diff(CLI::App&, Invocation&) {} }
