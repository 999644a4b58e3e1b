#include "holdfast/runtime/fit.h"

namespace holdfast {

std::string Fit::message(std::size_t limit) const {
  if (ok()) return {};
  const std::size_t count = differences.size();
  std::string text = "checkpoint " + version + " does not fit the program: " + std::to_string(count) +
                     (count == 1 ? " difference" : " differences");
  for (std::size_t i = 0; i < count && i < limit; ++i) text += "\n  " + differences[i].what;
  if (count > limit) text += "\n  … and " + std::to_string(count - limit) + " more";
  return text +
         "\nNothing was changed. Take the program this checkpoint was made with, choose another version "
         "(--holdfast.from) or run (--holdfast.run), or name what may be missing or unexpected "
         "(--holdfast.allow-missing, --holdfast.allow-unexpected).";
}

}  // namespace holdfast
