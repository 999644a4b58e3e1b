// Tensors are restored to the bit, whatever their dtype, layout and ties, and those that no checkpoint can hold are
// refused.
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "message_parts.h"
#include "state/save_and_restore.h"
#include "tensors/dtype.h"

using holdfast::RunState;
using holdfast::storage::StatusCode;

TEST_CASE("buffers_are_restored") {
  auto net = make_net(), other = make_net();
  for (int i = 0; i < 3; ++i) net->forward(torch::randn({8, 2}));
  RunState from, to;
  from.track("net", net);
  to.track("net", other);
  carry(from, to);
  const auto buffers = other->named_buffers();
  CHECK(buffers["1.num_batches_tracked"].item<std::int64_t>() == 3);
  for (const auto& buffer : net->named_buffers()) CHECK(same_bytes(buffer.value(), buffers[buffer.key()]));
}

TEST_CASE("tied_parameters_are_stored_once_and_stay_tied") {
  struct Tied : torch::nn::Module {
    Tied() {
      encoder = register_parameter("encoder", torch::randn({3, 4}));
      decoder = register_parameter("decoder", encoder);
      half = register_buffer("half", encoder.detach().slice(0, 0, 2));  // overlaps partly
      turned = register_buffer("turned", encoder.detach().t());         // the same bytes in another order
      row = register_buffer("row", encoder.detach().view({12}).slice(0, 4, 8));
    }
    torch::Tensor encoder, decoder, half, turned, row;
  } saved, loaded;
  torch::Tensor outside = saved.encoder, outside_loaded = loaded.encoder;
  RunState from, to;
  from.track("net", saved).track("outside", outside);
  to.track("net", loaded).track("outside", outside_loaded);
  const auto captured = from.capture();
  CHECK(captured.tied ==
        std::map<std::string, std::string>{{"net.decoder", "net.encoder"}, {"outside", "net.encoder"}});
  CHECK(std::count_if(captured.tensors.begin(), captured.tensors.end(),
                      [](const holdfast::storage::TensorSource& tensor) {
                        return tensor.name.starts_with("net.") || tensor.name == "outside";
                      }) == 4);  // encoder, half, turned, row
  carry(from, to);
  CHECK(same_bytes(saved.encoder, loaded.encoder));
  CHECK(same_bytes(saved.half, loaded.half));
  CHECK(same_bytes(saved.turned, loaded.turned));
  CHECK(loaded.decoder.is_same(loaded.encoder));
  CHECK(loaded.half.const_data_ptr() == loaded.encoder.const_data_ptr());
}

TEST_CASE("tensors_tied_on_one_side_only_load_where_their_values_agree") {
  torch::Tensor a = torch::ones({2}), b = a, c = torch::zeros({2}), d = torch::zeros({2});
  RunState tied, separate;
  tied.track("x", a).track("y", b);
  separate.track("x", c).track("y", d);
  carry(tied, separate);
  CHECK(torch::equal(c, torch::ones({2})));
  CHECK(torch::equal(d, torch::ones({2})));
  CHECK_FALSE(c.is_same(d));
  carry(separate, tied);

  d.fill_(2);
  TrackedRun run;
  run.save(separate);
  CHECK(refusal_lacking(StatusCode::misfit, [&] { tied.restore(run.newest()); }, {"y", "tied to x", "other values"}) ==
        "");
}

TEST_CASE("every_dtype_of_a_checkpoint_is_restored_bit_exactly") {
  CHECK(holdfast::storage::all_dtypes().size() == 19);
  for (const auto dtype : holdfast::storage::all_dtypes()) {
    const auto type = holdfast::to_scalar_type(dtype);
    INFO(c10::toString(type));
    REQUIRE(holdfast::to_dtype(type) == dtype);
    REQUIRE(c10::elementSize(type) == element_size(dtype));
    const auto width = static_cast<std::int64_t>(element_size(dtype));
    const std::int64_t limit = dtype == holdfast::storage::Dtype::boolean ? 2 : 256;
    auto bits = torch::randint(limit, {6 * width}, torch::kByte);
    // Arbitrary bits, including NaNs with payloads and subnormals: one plain, one transposed, one scalar, one empty.
    torch::Tensor plain = bits.view(type).view({2, 3}), turned = plain.clone().t(), scalar = plain.flatten()[1].clone();
    torch::Tensor empty = torch::empty({0, 3}, type);
    torch::Tensor plain2 = torch::zeros({6 * width}, torch::kByte).view(type).view({2, 3});
    torch::Tensor turned2 = plain2.clone().t(), scalar2 = plain2.flatten()[0].clone(),
                  empty2 = torch::empty({0, 3}, type);
    RunState from, to;
    from.track("plain", plain).track("turned", turned).track("scalar", scalar).track("empty", empty);
    to.track("plain", plain2).track("turned", turned2).track("scalar", scalar2).track("empty", empty2);
    carry(from, to);
    CHECK(std::memcmp(plain.const_data_ptr(), plain2.const_data_ptr(), plain.nbytes()) == 0);
    CHECK(std::memcmp(turned.const_data_ptr(), turned2.const_data_ptr(), plain.nbytes()) == 0);
    CHECK(std::memcmp(scalar.const_data_ptr(), scalar2.const_data_ptr(), width) == 0);
    CHECK(turned2.stride(0) == 1);
  }
}

TEST_CASE("strided_tensors_are_read_in_any_pieces_and_row_major") {
  // An index of the first dimension is 18 MB: larger than the copy buffer, whose size its rows do not divide.
  torch::Tensor whole = torch::arange(2 * 2300 * 2001, torch::kInt).view({2, 2300, 2001});
  torch::Tensor cut = whole.slice(2, 1, 2001), turned = whole.permute({2, 0, 1}), tiny = whole.slice(1, 0, 2300, 500);
  RunState state;
  state.track("cut", cut).track("turned", turned).track("tiny", tiny);
  for (const std::size_t piece : {std::size_t{1} << 18, std::size_t{1000003}, std::size_t{1} << 30}) {
    const auto bytes = bytes_of(state, piece);
    for (const auto& [name, tensor] : {std::pair("cut", cut), std::pair("turned", turned), std::pair("tiny", tiny)}) {
      const auto rows = tensor.contiguous();
      REQUIRE(bytes.tensors.at(name).size() == rows.nbytes());
      CHECK(std::memcmp(bytes.tensors.at(name).data(), rows.const_data_ptr(), rows.nbytes()) == 0);
    }
  }
}

TEST_CASE("conjugate_views_keep_their_values") {
  torch::Tensor base = torch::randn({2, 3}, torch::kComplexFloat), view = base.conj();
  torch::Tensor base2 = torch::zeros({2, 3}, torch::kComplexFloat), view2 = base2.conj();
  RunState from, to;
  from.track("base", base).track("view", view);
  to.track("base", base2).track("view", view2);
  CHECK(from.capture().tied.empty());
  carry(from, to);
  CHECK(torch::equal(base, base2));
  CHECK(torch::equal(view, view2));
}

TEST_CASE("unsupported_tensors_are_refused") {
  auto refusal = [](torch::Tensor tensor) {
    RunState state;
    state.track("x", tensor);
    return error_of([&] { state.capture(); });
  };
  torch::Tensor complex = torch::zeros({2}, torch::kComplexDouble);
  RunState unsupported;
  unsupported.track("x", complex);
  CHECK(refusal_lacking(StatusCode::unsupported, [&] { unsupported.capture(); },
                        {"'x'", "safetensors", "ComplexDouble"}) == "");
  CHECK_THAT(refusal(torch::zeros({2}, torch::kComplexHalf)), ContainsSubstring("ComplexHalf"));
  CHECK_THAT(refusal(torch::quantize_per_tensor(torch::ones({2}), 0.1, 0, torch::kQInt8)), ContainsSubstring("QInt8"));
  CHECK_THAT(refusal(torch::eye(2).to_sparse()),
             ContainsSubstring("'x'") && ContainsSubstring("sparse") && ContainsSubstring("to_dense()"));
  CHECK_THAT(refusal(torch::empty({2}, torch::kMeta)), ContainsSubstring("meta"));
  CHECK_THAT(refusal(torch::ones({1, 3}).expand({2, 3})), ContainsSubstring("expand()"));
  CHECK(refusal(torch::ones({1, 3}).expand({1, 3})).empty());
}

TEST_CASE("tensor_variables_may_be_reassigned_or_undefined") {
  torch::Tensor x, y, z = torch::ones({2});
  RunState from, to;
  torch::Tensor a = torch::ones({3}), b, c = torch::zeros({2});
  from.track("x", a).track("y", b).track("z", c);
  to.track("x", x).track("y", y).track("z", z);
  c = torch::full({2}, 5);
  c = c.to(torch::kFloat);
  carry(from, to);
  CHECK(torch::equal(x, a));
  CHECK_FALSE(y.defined());
  CHECK(torch::equal(z, torch::full({2}, 5.0f)));
}

TEST_CASE("tensor_variables_take_the_shape_and_dtype_that_were_saved") {
  torch::Tensor grown = torch::zeros({0, 2}), cast = torch::zeros({3}), edited = torch::zeros({4}), same = grown;
  torch::Tensor grown2 = grown.clone(), cast2 = cast.clone(), edited2 = torch::zeros({8}, torch::requires_grad()),
                same2 = grown2;
  RunState from, to;
  torch::Tensor gone = torch::ones({2}), gone2 = gone.clone();
  from.track("grown", grown).track("cast", cast).track("edited", edited).track("same", same).track("gone", gone);
  to.track("grown", grown2).track("cast", cast2).track("edited", edited2).track("same", same2).track("gone", gone2);
  from.begin();
  same = grown = torch::cat({grown, torch::randn({3, 2})});
  cast = torch::ones({3}, torch::kInt);
  gone.reset();
  TrackedRun run;
  run.save(from);
  const auto notes = to.restore(run.newest()).notes;
  CHECK(same_bytes(grown2, grown));
  CHECK(same_bytes(cast2, cast));
  CHECK(same_bytes(edited2, edited));
  CHECK(edited2.requires_grad());
  CHECK(same2.is_same(grown2));
  CHECK_FALSE(gone2.defined());
  REQUIRE(notes.size() == 2);
  CHECK(lacking(notes[0], {"edited", "F32 [8] in the code", "was F32 [4]", "the checkpoint's F32 [4]"}) == "");
  CHECK(lacking(notes[1], {"edited", "in the code it requires a gradient"}) == "");
  TrackedRun next;
  next.save(to);
  RunState again;
  torch::Tensor grown3 = torch::zeros({0, 2}), cast3 = torch::zeros({3});
  again.track("grown", grown3).track("cast", cast3);
  CHECK(again.restore(next.newest(), {.allow_missing = {}, .allow_unexpected = {"edited", "same", "gone"}})
            .notes.size() == 3);
  CHECK(same_bytes(grown3, grown));
}

TEST_CASE("restored_parameters_have_no_autograd_history_and_stale_graphs_fail") {
  torch::nn::Linear net(2, 2);
  RunState state;
  state.track("net", net);
  TrackedRun run;
  run.save(state);
  const auto stale = net->forward(torch::ones({1, 2}, torch::requires_grad())).square().sum();
  const void* const memory = net->weight.const_data_ptr();
  state.restore(run.newest());
  CHECK(net->weight.const_data_ptr() == memory);
  CHECK(net->weight.is_leaf());
  CHECK(net->weight.requires_grad());
  CHECK_FALSE(net->weight.grad().defined());
  CHECK_THROWS(stale.backward());
}
