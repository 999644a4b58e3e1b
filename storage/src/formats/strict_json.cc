#include "formats/strict_json.h"

#include <string>
#include <utility>
#include <vector>

#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

using nlohmann::json;

/// Builds the value from nlohmann's event stream, because its own parser keeps the last of two equal keys and does not
/// limit the depth.
class StrictBuilder : public nlohmann::json_sax<json> {
 public:
  StrictBuilder(json& root, int max_depth) : root_(root), max_depth_(max_depth) {}

  bool null() override { return place(nullptr); }
  bool boolean(bool value) override { return place(value); }
  bool number_integer(number_integer_t value) override { return place(value); }
  bool number_unsigned(number_unsigned_t value) override { return place(value); }
  bool number_float(number_float_t value, const string_t&) override { return place(value); }
  bool string(string_t& value) override { return place(std::move(value)); }
  bool binary(binary_t&) override { return fail("holds a binary value"); }
  bool start_object(std::size_t) override { return push(json::object()); }
  bool end_object() override { return pop(); }
  bool start_array(std::size_t) override { return push(json::array()); }
  bool end_array() override { return pop(); }

  bool key(string_t& name) override {
    auto [slot, inserted] = open_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!inserted) return fail("has the key " + in_quotes(name) + " twice");
    slot_ = &slot->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("is not valid JSON at byte " + std::to_string(position));
  }

  const std::string& problem() const { return problem_; }

 private:
  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  json& next_place() {
    if (open_.empty()) return root_;
    if (open_.back()->is_object()) return *slot_;
    auto& items = open_.back()->get_ref<json::array_t&>();
    items.emplace_back();
    return items.back();
  }

  template <class Value>
  bool place(Value&& value) {
    next_place() = std::forward<Value>(value);
    return true;
  }

  bool push(json empty) {
    if (static_cast<int>(open_.size()) == max_depth_) {
      return fail("nests deeper than " + std::to_string(max_depth_) + " levels");
    }
    json& value = next_place();
    value = std::move(empty);
    open_.push_back(&value);
    return true;
  }

  bool pop() {
    open_.pop_back();
    return true;
  }

  json& root_;
  int max_depth_;
  std::vector<json*> open_;  // a container's address is stable while it is open: only the innermost one grows
  json* slot_ = nullptr;     // the place for the value of the latest key
  std::string problem_;
};

}  // namespace

Result<json> parse_strict_json(std::string_view text, int max_depth, std::string_view what) {
  const auto corrupt = [&](const std::string& problem) {
    return Status(StatusCode::corrupt, std::string(what) + " " + problem);
  };
  if (text.empty() || text.front() != '{') return corrupt("does not begin with '{'");
  // nlohmann's lexer treats a NUL as the end of its input.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return corrupt("holds a NUL at byte " + std::to_string(nul));
  }
  json root;
  StrictBuilder builder(root, max_depth);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) return corrupt(builder.problem());
  return root;
}

}  // namespace holdfast::storage
