#include "holdfast/runtime/options/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/nearest_name.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/units.h"
#include "options/config_file.h"
#include "options/option_table.h"

namespace holdfast {
namespace {

constexpr std::string_view kPrefix = "--holdfast.";
constexpr std::string_view kEnvironmentPrefix = "HOLDFAST_";
constexpr std::string_view kConfig = "config";
constexpr std::string_view kAutomatic = "auto";

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& option : option_table()) all.emplace_back(option.name);
  return all;
}

const Option* find(std::string_view name) {
  for (const auto& option : option_table()) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

std::string environment_name(std::string_view name) {
  std::string variable(kEnvironmentPrefix);
  for (char letter : name)
    variable += letter == '-' ? '_' : static_cast<char>(letter >= 'a' ? letter - 'a' + 'A' : letter);
  return variable;
}

// The option's name from any of its spellings: HOLDFAST_TAKE_OVER, --holdfast.take-over, Take_Over.
std::string option_name(std::string_view written) {
  for (const auto prefix : {kEnvironmentPrefix, kPrefix}) {
    if (written.substr(0, prefix.size()) == prefix) written.remove_prefix(prefix.size());
  }
  std::string name;
  for (char letter : written) {
    name += letter == '_' ? '-' : letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  }
  return name;
}

// An option as given by one of the layers.
struct Given {
  const Option* option = nullptr;
  std::vector<std::string> values;  // one value, or a list's elements
  std::string origin;               // for users: "environment", "configs/kaggle.json:4"
  std::string given_as;             // in errors: "--holdfast.every"
};

// The values and, for each option, the layer that set it last. Layers are applied from the weakest to the strongest.
class Layers {
 public:
  explicit Layers(const SessionOptions& code) : values_(code) {
    const SessionOptions defaults;
    for (const auto& option : option_table()) {
      const auto given = option.get(code);
      const bool is_default = given == option.get(defaults);
      if (!is_default) origin_[option.name] = "code";
      const auto given_as = fmt::format("SessionOptions, {}", option.name);
      if (option.read) {
        attempt([&] { option.read(values_); }, given_as);
      } else if (!is_default && !option.clear) {  // values in code must also be valid texts for users
        auto scratch = defaults;
        attempt([&] { option.set(scratch, given); }, given_as);
      }
    }
  }

  void apply(const std::vector<Given>& layer) {
    for (const auto& given : layer) {
      auto& origin = origin_[given.option->name];
      // A stronger layer replaces a weaker one's list.
      if (given.option->clear && origin != given.origin) given.option->clear(values_);
      for (const auto& value : given.values) {
        attempt([&] { given.option->set(values_, value); }, given.given_as);
      }
      origin = given.origin;
    }
  }

  const SessionOptions& values() const { return values_; }
  std::string origin(std::string_view name) const {
    const auto found = origin_.find(name);
    return found == origin_.end() ? "default" : found->second;
  }

 private:
  template <class Act>
  static void attempt(const Act& act, const std::string& given_as) {
    try {
      act();
    } catch (const std::exception& error) {
      refuse_options(fmt::format("{}: {}", given_as, error.what()));
    }
  }

  SessionOptions values_;
  std::map<std::string_view, std::string> origin_;
};

std::vector<Given> read_environment(char** environment) {
  std::vector<Given> layer;
  for (char** entry = environment; entry && *entry; ++entry) {
    const std::string_view line = *entry;
    const auto equals = line.find('=');
    if (equals == std::string_view::npos || line.substr(0, kEnvironmentPrefix.size()) != kEnvironmentPrefix) continue;
    const std::string variable(line.substr(0, equals)), value(line.substr(equals + 1));
    if (value.empty()) continue;
    const auto* option = find(option_name(variable));
    if (!option) {
      // Other programs may use the prefix; a name close to one of Holdfast's options is a typing error.
      const auto nearest = storage::nearest_name(option_name(variable), names());
      if (nearest.distance <= (nearest.name.size() < 6 ? 1u : 2u)) {
        refuse_options(fmt::format("{} in the environment is not an option; the nearest is {}", variable,
                                   environment_name(nearest.name)));
      }
      continue;
    }
    Given given{option, {}, "environment", variable};
    for (std::size_t begin = 0; begin <= value.size();) {
      const auto end = option->clear ? std::min(value.find(',', begin), value.size()) : value.size();
      given.values.push_back(value.substr(begin, end - begin));
      begin = end + 1;
    }
    layer.push_back(std::move(given));
  }
  return layer;
}

// By hand instead of with CLI11, because the session takes only its own arguments: the program's stay in argv in their
// order, and it may parse them with any library.
// Removes the session's arguments. `help` becomes true if --holdfast.help is among them.
std::vector<Given> read_command_line(int& argc, char** argv, bool& help, std::vector<std::string>& taken) {
  std::vector<Given> layer;
  if (argc == 0) return layer;
  int kept = 1;
  int i = 1;
  // An earlier session may have shortened `argv` while the program kept its own count.
  for (int end = 0; end < argc; ++end) {
    if (argv[end] == nullptr) argc = end;
  }
  for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, kPrefix.size()) != kPrefix) {
      argv[kept++] = argv[i];
      continue;
    }
    taken.emplace_back(argument);
    const auto equals = argument.find('=');
    const std::string given_as(argument.substr(0, equals));
    const auto name = std::string_view(given_as).substr(kPrefix.size());
    if (name == "help") {
      help = true;
      continue;
    }
    const auto* option = find(name);
    if (!option) {
      refuse_options(fmt::format("{} is not an option; the nearest is {}{} (--holdfast.help lists all)", given_as,
                                 kPrefix, storage::nearest_name(name, names()).name));
    }
    Given given{option, {}, "command line", given_as};
    if (equals != std::string_view::npos) {
      given.values.emplace_back(argument.substr(equals + 1));
    } else if (option->argument.empty()) {
      // If the word were left to the program, --holdfast.fresh false would begin from scratch.
      if (const std::string_view word = i + 1 < argc ? argv[i + 1] : ""; word == "true" || word == "false") {
        refuse_options(fmt::format("{0} takes its value after =, as in {0}={1}", given_as, word));
      }
      given.values.emplace_back("true");
    } else {
      if (i + 1 == argc || std::string_view(argv[i + 1]).substr(0, 2) == "--") {
        refuse_options(fmt::format("{0} needs a value: {0} {1}", given_as, option->argument));
      }
      given.values.emplace_back(taken.emplace_back(argv[++i]));
    }
    layer.push_back(std::move(given));
  }
  for (; i < argc; ++i) argv[kept++] = argv[i];
  argv[kept] = nullptr;
  argc = kept;
  return layer;
}

std::string_view wanted(JsonType type) {
  switch (type) {
    case JsonType::whole_number:
      return "a whole number";
    case JsonType::boolean:
      return "true or false";
    case JsonType::list:
      return "a string or a list of strings";
    default:
      return "a string";
  }
}

// The texts for the option's `set`, from a value of the right type.
std::vector<std::string> texts_of(const Option& option, const ConfigEntry& entry, const std::string& given_as) {
  const auto refuse_type = [&](const ConfigValue& value) {
    const bool quoted = value.type == JsonType::string;
    refuse_options(fmt::format("{} needs {}{}, not {}{}", given_as, wanted(option.type),
                               quoted ? " without quotes" : "", in_words(value),
                               value.type == JsonType::null ? "; leave the line out to keep the default" : ""));
  };
  if (option.type == JsonType::list && entry.value.type == JsonType::list) {
    std::vector<std::string> texts;
    for (const auto& element : entry.elements) {
      if (element.type != JsonType::string) refuse_type(element);
      texts.push_back(element.text);
    }
    return texts;
  }
  const bool is_string = entry.value.type == JsonType::string;
  const bool right = entry.value.type == option.type || (is_string && option.type == JsonType::list) ||
                     // A number is also valid for a text option: "every": 500.
                     (option.type == JsonType::string && entry.value.type == JsonType::whole_number);
  if (!right) refuse_type(entry.value);
  return {entry.value.text};
}

std::vector<Given> read_config(const std::string& path, const std::string& path_given_as) {
  std::string text;
  try {
    check_path(path);
    text = read_config_text(path);
  } catch (const std::exception& error) {
    refuse_options(fmt::format("{}: {}", path_given_as, error.what()));
  }
  std::vector<Given> layer;
  for (const auto& entry : parse_config(text, path)) {
    const auto origin = fmt::format("{}:{}", path, entry.line);
    const auto given_as = fmt::format("{}: \"{}\"", origin, entry.key);
    const auto* option = find(entry.key);
    if (!option) {
      refuse_options(
          fmt::format("{} is not an option of the session; the nearest is \"{}\". --holdfast.help lists all; the "
                      "program's own options stay on its command line",
                      given_as, storage::nearest_name(option_name(entry.key), names()).name));
    }
    if (option->name == kConfig) {
      refuse_options(fmt::format(
          "{}: a configuration file cannot name another one; use --holdfast.config or HOLDFAST_CONFIG", given_as));
    }
    layer.push_back({option, texts_of(*option, entry, given_as), origin, given_as});
  }
  return layer;
}

std::string shown(const std::string& value) { return value.empty() ? "none" : value; }

}  // namespace

namespace detail {

OptionsRead read_options(int& argc, char** argv, const SessionOptions& code, char** environment,
                         const Surroundings& around) {
  const auto program = std::string(argc > 0 && argv[0] ? argv[0] : "");
  auto program_name = program.substr(program.find_last_of('/') + 1);
  if (program_name.empty() || program_name.front() == '.' || !storage::is_utf8(program_name) ||
      storage::has_control_characters(program_name)) {
    program_name = "run";
  }
  OptionsRead read;
  const auto environment_layer = read_environment(environment);
  const auto command_line = read_command_line(argc, argv, read.help, read.arguments);
  Layers layers(code);
  // The code and the layers above the configuration file name it.
  Given config{nullptr, {code.config}, "code", "SessionOptions, config"};
  for (const auto* layer : {&environment_layer, &command_line}) {
    for (const auto& given : *layer) {
      if (given.option->name == kConfig) config = given;
    }
  }
  const auto& path = config.values.front();
  if (!path.empty()) layers.apply(read_config(path, config.given_as));
  layers.apply(environment_layer);
  layers.apply(command_line);
  read.around = around;
  read.platform = detect(around);
  if (const std::string& asked = layers.values().platform; asked != kAutomatic) {
    read.platform.place = {asked, "option platform (" + layers.origin("platform") + ")"};
  }
  read.profile = profile_of(read.platform.place.name, around);
  const std::string of_platform = "platform " + read.profile.name;
  const auto of_profile = [&](const char* name, const std::vector<std::string>& values) {
    if (layers.origin(name) != "default" || values.empty()) return;
    layers.apply({{find(name), values, of_platform, of_platform}});
  };
  // Mirrors complete the platform's folder; whoever chose another folder chose where versions go.
  if (layers.origin("dir") == "default") {
    if (read.profile.home != layers.values().dir) of_profile("dir", {read.profile.home});
    of_profile("mirror", read.profile.mirrors);
  }
  of_profile("search", read.profile.search);
  read.values = layers.values();
  if (!read.help && read.values.fresh && !read.values.from.empty()) {
    refuse_options(
        fmt::format("--holdfast.from {} ({}) and --holdfast.fresh ({}) contradict each other: give one of them",
                    read.values.from, layers.origin("from"), layers.origin("fresh")));
  }
  if (read.values.run.empty()) read.values.run = program_name;
  auto defaults = SessionOptions();
  defaults.run = program_name;
  for (const auto& option : option_table()) {
    read.in_force.push_back({std::string(option.name), std::string(option.argument), std::string(option.meaning),
                             option.get(defaults), option.get(read.values), layers.origin(option.name)});
  }
  return read;
}

std::string help_text(const OptionsRead& options) {
  std::string text =
      "Options of the session: --holdfast.NAME VALUE on the command line, HOLDFAST_NAME=VALUE in the environment\n"
      "(with _ for -), or \"NAME\": VALUE in a configuration file. The command line wins over the environment,\n"
      "the environment over the file, the file over the program's code, the code over the platform's defaults.\n\n";
  std::size_t width = 0;
  for (const auto& option : options.in_force) width = std::max(width, option.name.size() + 1 + option.argument.size());
  for (const auto& option : options.in_force) {
    const auto usage = option.argument.empty() ? option.name : option.name + " " + option.argument;
    text += fmt::format("  {}{:<{}}  {}\n  {:{}}  now {} ({}), default {}\n", kPrefix, usage, width, option.meaning, "",
                        kPrefix.size() + width, shown(option.value), option.origin, shown(option.fallback));
  }
  text += fmt::format("  {}{:<{}}  this text\n", kPrefix, "help", width);
  return text;
}

}  // namespace detail
}  // namespace holdfast
