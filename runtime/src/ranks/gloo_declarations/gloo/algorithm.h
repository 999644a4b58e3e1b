// The wheel exports c10d::ProcessGroupGloo but ships no Gloo headers. These five declare of Gloo what that class's
// header names, and are on the include path of one file only, transport.cc, which never uses Gloo but through c10d.
#pragma once
