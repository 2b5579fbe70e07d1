// Torch built without CUDA refuses to name a CUDA device. With this guard it only switches to one,
// which for tensors that have no memory is nothing to do.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

}  // namespace
