#include "verb.h"
namespace holdfast::tools { void add_verify(CLI::App&, Invocation&) {} }
