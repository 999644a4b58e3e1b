#include "libtorch/optimizer_fields.h"

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <typeinfo>

#include "holdfast/runtime/optim/fused_optimizers.h"

namespace holdfast {
namespace {

namespace optim = torch::optim;

// Adam and AdamW have separate types with the same fields.
template <class AdamState>
void visit_adam_state(AdamState& state, FieldVisitor& visitor) {
  visitor.field("step", state.step());
  visitor.field("exp_avg", state.exp_avg());
  visitor.field("exp_avg_sq", state.exp_avg_sq());
  visitor.field("max_exp_avg_sq", state.max_exp_avg_sq());
}

template <class AdamOptions>
void visit_adam_options(AdamOptions& options, FieldVisitor& visitor) {
  visitor.field("lr", options.lr());
  visitor.field("betas", options.betas());
  visitor.field("eps", options.eps());
  visitor.field("weight_decay", options.weight_decay());
  visitor.field("amsgrad", options.amsgrad());
}

void visit_fields(optim::AdamParamState& state, FieldVisitor& visitor) { visit_adam_state(state, visitor); }
void visit_fields(optim::AdamOptions& options, FieldVisitor& visitor) { visit_adam_options(options, visitor); }
void visit_fields(optim::AdamWParamState& state, FieldVisitor& visitor) { visit_adam_state(state, visitor); }
void visit_fields(optim::AdamWOptions& options, FieldVisitor& visitor) { visit_adam_options(options, visitor); }

void visit_fields(optim::SGDParamState& state, FieldVisitor& visitor) {
  visitor.field("momentum_buffer", state.momentum_buffer());
}

void visit_fields(optim::SGDOptions& options, FieldVisitor& visitor) {
  visitor.field("lr", options.lr());
  visitor.field("momentum", options.momentum());
  visitor.field("dampening", options.dampening());
  visitor.field("weight_decay", options.weight_decay());
  visitor.field("nesterov", options.nesterov());
}

void visit_fields(optim::RMSpropParamState& state, FieldVisitor& visitor) {
  visitor.field("step", state.step());
  visitor.field("square_avg", state.square_avg());
  visitor.field("momentum_buffer", state.momentum_buffer());
  visitor.field("grad_avg", state.grad_avg());
}

void visit_fields(optim::RMSpropOptions& options, FieldVisitor& visitor) {
  visitor.field("lr", options.lr());
  visitor.field("alpha", options.alpha());
  visitor.field("eps", options.eps());
  visitor.field("weight_decay", options.weight_decay());
  visitor.field("momentum", options.momentum());
  visitor.field("centered", options.centered());
}

void visit_fields(optim::AdagradParamState& state, FieldVisitor& visitor) {
  visitor.field("sum", state.sum());
  visitor.field("step", state.step());
}

void visit_fields(optim::AdagradOptions& options, FieldVisitor& visitor) {
  visitor.field("lr", options.lr());
  visitor.field("lr_decay", options.lr_decay());
  visitor.field("weight_decay", options.weight_decay());
  visitor.field("initial_accumulator_value", options.initial_accumulator_value());
  visitor.field("eps", options.eps());
}

// LBFGS keeps one state for all parameters, under the first one.
void visit_fields(optim::LBFGSParamState& state, FieldVisitor& visitor) {
  visitor.field("func_evals", state.func_evals());
  visitor.field("n_iter", state.n_iter());
  visitor.field("t", state.t());
  visitor.field("prev_loss", state.prev_loss());
  visitor.field("d", state.d());
  visitor.field("H_diag", state.H_diag());
  visitor.field("prev_flat_grad", state.prev_flat_grad());
  visitor.field("old_dirs", state.old_dirs());
  visitor.field("old_stps", state.old_stps());
  visitor.field("ro", state.ro());
  visitor.field("al", state.al());
}

void visit_fields(optim::LBFGSOptions& options, FieldVisitor& visitor) {
  visitor.field("lr", options.lr());
  visitor.field("max_iter", options.max_iter());
  visitor.field("max_eval", options.max_eval());
  visitor.field("tolerance_grad", options.tolerance_grad());
  visitor.field("tolerance_change", options.tolerance_change());
  visitor.field("history_size", options.history_size());
  visitor.field("line_search_fn", options.line_search_fn());
}

/// `Optimizers`: the classes with exactly this state and these options; a checkpoint treats them as one kind.
template <class ParamState, class Options, class... Optimizers>
class FieldsOf : public OptimizerFields {
 public:
  explicit FieldsOf(const char* name) : name_(name) {}
  const char* name() const override { return name_; }
  std::unique_ptr<optim::OptimizerParamState> make_state() const override { return std::make_unique<ParamState>(); }
  void visit(optim::OptimizerParamState& state, FieldVisitor& visitor) const override {
    visit_fields(static_cast<ParamState&>(state), visitor);
  }
  void visit(optim::OptimizerOptions& options, FieldVisitor& visitor) const override {
    visit_fields(static_cast<Options&>(options), visitor);
  }
  static const OptimizerFields* match(const optim::Optimizer& optimizer, const char* name) {
    static const FieldsOf fields(name);
    return ((typeid(optimizer) == typeid(Optimizers)) || ...) ? &fields : nullptr;
  }

 private:
  const char* name_;
};

}  // namespace

const OptimizerFields* fields_of(const optim::Optimizer& optimizer) {
  using namespace torch::optim;  // NOLINT: eighteen names of one family
  if (auto* found = FieldsOf<AdamParamState, AdamOptions, Adam, FusedAdam>::match(optimizer, "Adam")) return found;
  if (auto* found = FieldsOf<AdamWParamState, AdamWOptions, AdamW, FusedAdamW>::match(optimizer, "AdamW")) return found;
  if (auto* found = FieldsOf<SGDParamState, SGDOptions, SGD, FusedSgd>::match(optimizer, "SGD")) return found;
  if (auto* found = FieldsOf<RMSpropParamState, RMSpropOptions, RMSprop>::match(optimizer, "RMSprop")) return found;
  if (auto* found = FieldsOf<AdagradParamState, AdagradOptions, Adagrad>::match(optimizer, "Adagrad")) return found;
  return FieldsOf<LBFGSParamState, LBFGSOptions, LBFGS>::match(optimizer, "LBFGS");
}

}  // namespace holdfast
