// Access to state of LibTorch's classes that has no accessor.
#pragma once

namespace holdfast {
namespace {  // each source file's own, as the tags are

/// Access checks do not apply to the arguments of an explicit instantiation ([temp.spec.general]/6), so that one can
/// hand a pointer to a private member to a friend function. Well-defined, and a LibTorch that renames a member fails to
/// compile there. Each tag declares the friend that its instantiation defines:
///   struct Best { friend auto member_of(Best); };
///   template struct Expose<Best, &Scheduler::best>;
template <class Tag, auto member>
struct Expose {
  friend auto member_of(Tag) { return member; }
};

}  // namespace
}  // namespace holdfast
