// Manifests for tests of their encoding: one with each kind of field, its bytes, and a comparison field by field.
#pragma once

#include <cstdint>
#include <string>

#include "catch.h"
#include "holdfast/storage/formats/manifest.h"
#include "storage/sample_version.h"

namespace sample_manifest {

using namespace holdfast::storage;
using sample_version::manifest_of;
using sample_version::uid_of;

inline Digest digest_like(std::uint64_t number) { return {number, ~number}; }

/// A matrix of 2 × 3 floats and a vector of 4 bytes in one file, and a tied name.
inline Manifest sample() {
  Manifest manifest = manifest_of(uid_of(42));
  manifest.files = {{"data/000042-7f3a9c1e.r0of1.safetensors", 4124, digest_like(1), 4096, digest_like(2)}};
  manifest.tensors = {{"a.bias", Dtype::u8, {4}, digest_like(4), {{0, 4120, 4124, {}, {}}}},
                      {"a.weight", Dtype::f32, {2, 3}, digest_like(3), {{0, 4096, 4120, {}, {}}}}};
  manifest.tied = {{"b.weight", "a.weight"}};
  return manifest;
}

/// The bytes of sample().
inline const std::string kText =
    R"({"holdfast":"save","format":1,
"uid":"000042-7f3a9c1e",
"epoch":3,
"parent":"000041-51d0aa02",
"run":"mnist",
"time":"2026-01-31T12:00:00Z",
"reason":"every 500 steps",
"position":{"epoch":2,"samples":64000,"step":1000},
"world_size":1,
"durability":"fsynced",
"metrics":{"loss":0.25},
"values":{"lr":0.001},
"made_by":{"holdfast":"0.1.0"},
"cost":{"bytes":4096,"seconds":0.5},
"needs_features":[],
"files":[
{"name":"data/000042-7f3a9c1e.r0of1.safetensors","bytes":4124,"digest":"0000000000000001fffffffffffffffe","header_bytes":4096,"header_digest":"0000000000000002fffffffffffffffd"}
],
"tensors":{
"a.bias":{"dtype":"U8","shape":[4],"digest":"0000000000000004fffffffffffffffb","parts":[{"file":0,"begin":4120,"end":4124}]},
"a.weight":{"dtype":"F32","shape":[2,3],"digest":"0000000000000003fffffffffffffffc","parts":[{"file":0,"begin":4096,"end":4120}]}
},
"tied":{
"b.weight":"a.weight"
},
"digest":"e3bed6ae9f1e2a475451ba387868100f"}
)";

/// The matrix of sample() as two boxes of one column and of two, in two files of two ranks.
inline Manifest boxed() {
  Manifest manifest = manifest_of(uid_of(42));
  manifest.world_size = 2;
  manifest.files = {{"data/000042-7f3a9c1e.r0of2.safetensors", 4104, digest_like(1), 4096, digest_like(2)},
                    {"data/000042-7f3a9c1e.r1of2.safetensors", 4112, digest_like(1), 4096, digest_like(2)}};
  manifest.tensors = {
      {"w", Dtype::f32, {2, 3}, digest_like(3), {{0, 4096, 4104, {0, 0}, {2, 1}}, {1, 4096, 4112, {0, 1}, {2, 2}}}}};
  return manifest;
}

/// Checks that all fields are equal.
inline void same(const Manifest& a, const Manifest& b) {
  CHECK(a.uid == b.uid);
  CHECK(a.epoch == b.epoch);
  CHECK(a.parent == b.parent);
  CHECK(a.run == b.run);
  CHECK(a.time == b.time);
  CHECK(a.reason == b.reason);
  CHECK(a.position.step == b.position.step);
  CHECK(a.position.epoch == b.position.epoch);
  CHECK(a.position.samples == b.position.samples);
  CHECK(a.world_size == b.world_size);
  CHECK(a.durability == b.durability);
  CHECK(a.metrics == b.metrics);
  CHECK(a.values == b.values);
  CHECK(a.made_by == b.made_by);
  CHECK(a.cost == b.cost);
  CHECK(a.tied == b.tied);
  REQUIRE(a.files.size() == b.files.size());
  for (std::size_t i = 0; i < a.files.size(); ++i) {
    CHECK(a.files[i].name == b.files[i].name);
    CHECK(a.files[i].bytes == b.files[i].bytes);
    CHECK(a.files[i].digest == b.files[i].digest);
    CHECK(a.files[i].header_bytes == b.files[i].header_bytes);
    CHECK(a.files[i].header_digest == b.files[i].header_digest);
  }
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    CHECK(a.tensors[i].name == b.tensors[i].name);
    CHECK(a.tensors[i].dtype == b.tensors[i].dtype);
    CHECK(a.tensors[i].shape == b.tensors[i].shape);
    CHECK(a.tensors[i].digest == b.tensors[i].digest);
    REQUIRE(a.tensors[i].parts.size() == b.tensors[i].parts.size());
    for (std::size_t k = 0; k < a.tensors[i].parts.size(); ++k) {
      const TensorPart &x = a.tensors[i].parts[k], &y = b.tensors[i].parts[k];
      CHECK(x.file == y.file);
      CHECK(x.begin == y.begin);
      CHECK(x.end == y.end);
      CHECK(x.offset == y.offset);
      CHECK(x.extent == y.extent);
    }
  }
}

}  // namespace sample_manifest
