// The file of a VectorIndex: whose vectors, their keys, Faiss's own form of the index, a checksum.
#ifndef GVSL_SERVER_VECTOR_INDEX_FILE_H_
#define GVSL_SERVER_VECTOR_INDEX_FILE_H_

#include <faiss/Index.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gvsl {

struct VectorIndexFile {
  std::string identity;
  std::vector<int64_t> keys;  // by position in the index
  std::unique_ptr<faiss::Index> index;
};

// Writes aside, syncs and renames. The statuses of OutputFile.
absl::Status WriteVectorIndexFile(const std::string& path, const std::string& identity,
                                  const std::vector<int64_t>& keys, const faiss::Index& index);

// Faiss sees no byte before the checksum over all of them was found right. NOT_FOUND: no file.
// DATA_LOSS: damaged, or not ours.
absl::StatusOr<VectorIndexFile> ReadVectorIndexFile(const std::string& path);

}  // namespace gvsl

#endif  // GVSL_SERVER_VECTOR_INDEX_FILE_H_
