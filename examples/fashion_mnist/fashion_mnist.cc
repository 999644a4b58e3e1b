#include "fashion_mnist.h"

#include <holdfast/holdfast.h>
#include <zlib.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

// One IDX file: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
// 32-bit number, then the elements (LeCun, Cortes and Burges, "The MNIST database", "file formats").
torch::Tensor read_idx(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) {
    throw std::runtime_error("cannot open " + path +
                             ": install the package dataset-fashion-mnist, or give the folder with the four files as "
                             "--data");
  }
  const auto read = [&](void* into, std::size_t bytes) {
    if (gzread(file.get(), into, static_cast<unsigned>(bytes)) != static_cast<int>(bytes)) {
      throw std::runtime_error(path + " ends too early: is the download complete?");
    }
  };
  std::array<unsigned char, 4> magic{};
  read(magic.data(), magic.size());
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] < 1 || magic[3] > 4) {
    throw std::runtime_error(path + " is not an IDX file of bytes");
  }
  std::vector<std::int64_t> shape(magic[3]);
  for (std::int64_t& dimension : shape) {
    std::array<unsigned char, 4> number{};
    read(number.data(), number.size());
    dimension = (number[0] << 24) | (number[1] << 16) | (number[2] << 8) | number[3];
  }
  torch::Tensor tensor = torch::empty(shape, torch::kByte);
  read(tensor.data_ptr(), tensor.nbytes());
  return tensor;
}

}  // namespace

FashionMnist::FashionMnist(const std::string& folder, const std::string& split) {
  const std::string prefix = folder + "/" + (split == "train" ? "train" : "t10k");
  images_ = read_idx(prefix + "-images-idx3-ubyte.gz");
  labels_ = read_idx(prefix + "-labels-idx1-ubyte.gz").to(torch::kLong);
  if (images_.dim() != 3 || images_.size(0) != labels_.size(0)) {
    throw std::runtime_error(prefix + "-*: the images and the labels do not match");
  }
}

torch::data::Example<> FashionMnist::get(std::size_t index) {
  const auto at = static_cast<std::int64_t>(index);
  torch::Tensor image = images_[at].to(torch::kFloat).div_(255).sub_(0.2860).div_(0.3530).unsqueeze(0);
  if (augment_ && holdfast::sample_seed(index) % 2 == 0) image = image.flip(2);
  return {image, labels_[at]};
}
