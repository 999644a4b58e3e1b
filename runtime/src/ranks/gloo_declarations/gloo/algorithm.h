// The wheel exports c10d::ProcessGroupGloo but ships no Gloo headers. These five headers declare the names of Gloo that
// the class's header uses. Only transport.cc has them on its include path, and it uses Gloo only through c10d.
#pragma once
