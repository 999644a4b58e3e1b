#include "libtorch/module_tensors.h"

#include <torch/nn/module.h>

#include "libtorch/private_member.h"

namespace holdfast {
namespace {

using torch::nn::Module;
using Visit = std::function<void(const std::string&, const Module&)>;

struct Parameters {
  friend auto member_of(Parameters);
};
template struct Expose<Parameters, &Module::parameters_>;
struct Buffers {
  friend auto member_of(Buffers);
};
template struct Expose<Buffers, &Module::buffers_>;

std::string joined(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

// named_modules() needs a shared_ptr of the module itself, which a module on the stack does not have.
void walk(const Module& module, const std::string& path, const Visit& visit) {
  visit(path, module);
  for (const auto& child : module.named_children()) walk(*child.value(), joined(path, child.key()), visit);
}

template <class Tag>
void each_tensor(const Module& module, const VisitTensor& visit) {
  walk(module, "", [&](const std::string& path, const Module& part) {
    for (const auto& item : part.*member_of(Tag())) {
      if (item.value().defined()) visit(joined(path, item.key()), item.value());
    }
  });
}

}  // namespace

void each_parameter(const Module& module, const VisitTensor& visit) { each_tensor<Parameters>(module, visit); }
void each_buffer(const Module& module, const VisitTensor& visit) { each_tensor<Buffers>(module, visit); }

void each_module(const Module& module, const Visit& visit) { walk(module, "", visit); }

}  // namespace holdfast
