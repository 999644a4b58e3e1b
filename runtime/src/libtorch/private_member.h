// Access to state of LibTorch's classes that has no accessor.
#pragma once

namespace holdfast {
namespace {  // separate in each source file, as the tags are

/// Access checks do not apply to the arguments of an explicit instantiation ([temp.spec.general]/6), so it can pass a
/// pointer to a private member to a friend function. This is well-defined, and if LibTorch renames a member it fails to
/// compile. Each tag declares the friend that its instantiation defines:
///   struct Best { friend auto member_of(Best); };
///   template struct Expose<Best, &Scheduler::best>;
template <class Tag, auto member>
struct Expose {
  friend auto member_of(Tag) { return member; }
};

}  // namespace
}  // namespace holdfast
