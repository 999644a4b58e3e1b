// A live tensor as storage's TensorSource.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "holdfast/storage/run/payload.h"

namespace holdfast {

/// One buffer that all sources of one save share, because they are read one after the other.
class CopyBuffer;
std::shared_ptr<CopyBuffer> make_copy_buffer();

/// Holds the tensor and copies nothing yet. Contiguous CPU tensors are copied directly from their memory; others
/// (strided, on a GPU) in pieces of at most 8 MiB through `buffer`.
/// Throws Error (unsupported) for sparse, quantized, unallocated or expanded tensors and for dtypes that safetensors
/// cannot represent.
storage::TensorSource make_source(std::string name, const at::Tensor& tensor, std::shared_ptr<CopyBuffer> buffer);

/// Throws as make_source does.
void require_storable(const std::string& name, const at::Tensor& tensor);

/// Whether its bytes are row-major in host memory, as a checkpoint stores them.
bool has_plain_bytes(const at::Tensor& tensor);

/// A tensor's elements as integers of their width, so that copying them can never change a bit.
at::Tensor as_bits(const at::Tensor& tensor);

}  // namespace holdfast
