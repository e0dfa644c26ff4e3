// What the services share that go through the inference engine: the model and the volumes that a
// request names, and a turn on the device.
#ifndef GVSL_SERVER_ENGINE_CALL_H_
#define GVSL_SERVER_ENGINE_CALL_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/server_state.h"

namespace gvsl {

// The model of a request; "" means models/default. INVALID_ARGUMENT opens with `model`.
absl::StatusOr<StoredModel> ModelOf(ServerState& state, const std::string& name);

// The volume that a request's `field` names: an image, or with `labels` a label map.
// INVALID_ARGUMENT opens with `field`.
absl::StatusOr<StoredVolume> VolumeOf(ServerState& state, const std::string& name,
                                      const std::string& field, bool labels);

// Does `work` on the engine with the model. `admitted`: a later turn of a request, which the queue
// always takes.
absl::Status OnDevice(ServerState& state, const StoredModel& model, const CancelFunction& cancelled,
                      const std::function<absl::Status(Extractor&)>& work, bool admitted = false);

// The same after the window was looked at.
absl::Status OnEngine(ServerState& state, const StoredModel& model, const WindowOptions& options,
                      const CancelFunction& cancelled,
                      const std::function<absl::Status(Extractor&)>& work, bool admitted = false);

}  // namespace gvsl

#endif  // GVSL_SERVER_ENGINE_CALL_H_
