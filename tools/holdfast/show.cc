#include "verb.h"
namespace holdfast::tools { void add_show(CLI::App&, Invocation&) {} }
