// A sequence's range in legs, one after the other, each by whichever block is free: the last of a launch
// then end together. Whole, 360 blocks on 132 multiprocessors would leave some with three and some with
// two, which are through early. A leg costs its start and end only: its first state is handed over.
#pragma once

#include <cstdint>

#include "mapping.cuh"

namespace swin_umamba {

// Which leg of which range this block has.
struct Leg {
  const ScanParams& p;
  const int* turn;  // in shared memory, not in registers that the scan wants

  // By turns taken, not by blockIdx: so a leg's predecessors are held by blocks that run, or have ended.
  // All threads of the block come here.
  static __device__ Leg take(const ScanParams& p) {
    __shared__ int turn;
    if (threadIdx.x == 0) turn = p.legs == 1 ? blockIdx.x : atomicAdd(p.leg_turns, 1);
    __syncthreads();
    return {p, &turn};
  }

  __device__ int ranges() const { return gridDim.x / p.legs; }
  __device__ int range() const { return *turn % ranges(); }
  __device__ int leg() const { return *turn / ranges(); }
  __device__ bool first() const { return leg() == 0; }

  // Leaves of a block's range its own tiles.
  template <bool kReverse>
  __device__ void cut(Block& w) const {
    if (p.legs == 1) return;
    const int done = leg() * p.tiles_per_leg;
    if constexpr (kReverse) {
      w.last_tile -= done;
      w.first_tile = max(w.first_tile, w.last_tile - p.tiles_per_leg);
    } else {
      w.first_tile += done;
      w.last_tile = min(w.last_tile, w.first_tile + p.tiles_per_leg);
    }
  }

  // How many legs of this warp's channels are through.
  template <class M>
  __device__ int32_t* through(const Lane<M>& t) const {
    static_assert(M::kWarps <= kMostWarps);
    return p.leg_turns + 1 + range() * M::kWarps + t.warp;
  }

  // Until this warp may read what the leg before left for it.
  template <class M>
  __device__ void wait(const Lane<M>& t) const {
    if (t.lane == 0) {
      const int32_t* counter = through<M>(t);
      for (int32_t seen = 0; seen < leg();) {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
        if (seen < leg()) __nanosleep(500);
      }
    }
    __syncwarp();
  }
  // After all that the next leg reads of this warp has been stored.
  template <class M>
  __device__ void pass_on(const Lane<M>& t) const {
    if (leg() + 1 >= p.legs) return;
    __syncwarp();
    if (t.lane == 0) {
      asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(through<M>(t)), "r"(leg() + 1) : "memory");
    }
  }

  // The state between two legs.
  __device__ float* state(const Block& w) const {
    return p.leg_state + w.split_row(p, w.split) * p.D * p.N;
  }
  template <class M>
  __device__ void receive(const Block& w, const Lane<M>& t, float (&v)[M::P][M::S]) const {
    wait<M>(t);
    load_states<M>(p, w, t, state(w), v);
  }
  template <class M>
  __device__ void hand_over(const Block& w, const Lane<M>& t, const float (&v)[M::P][M::S]) const {
    if (leg() + 1 < p.legs) save_states<M>(p, w, t, state(w), v);
    pass_on<M>(t);
  }
};

}  // namespace swin_umamba
