// A range of a sequence as a chain of segments, each run by whichever block is free, so that the last
// blocks of a launch end together. Whole, 360 ranges on 132 multiprocessors would leave some with three
// and some with two, which idle at the end. A segment costs only its start and end: the carry, the state
// between two steps, is handed off from one to the next.
#pragma once

#include <cstdint>

#include "mapping.cuh"

namespace swin_umamba {

// The segment that this block runs.
struct Segment {
  const ScanParams& p;
  const int* ticket;  // in shared memory, not in registers that the scan needs

  // By order of arrival, not by blockIdx: the segments before this one then belong to blocks that are
  // running or have ended. Called by all threads of the block.
  static __device__ Segment take(const ScanParams& p) {
    __shared__ int ticket;
    if (threadIdx.x == 0) ticket = p.segments == 1 ? blockIdx.x : atomicAdd(p.counters, 1);
    __syncthreads();
    return {p, &ticket};
  }

  __device__ int ranges() const { return gridDim.x / p.segments; }
  __device__ int range() const { return *ticket % ranges(); }
  __device__ int index() const { return *ticket / ranges(); }  // in its chain
  __device__ bool first() const { return index() == 0; }

  // Reduces a block's range to the tiles of this segment.
  template <bool kReverse>
  __device__ void cut(Block& w) const {
    if (p.segments == 1) return;
    const int done = index() * p.tiles_per_segment;
    if constexpr (kReverse) {
      w.last_tile -= done;
      w.first_tile = max(w.first_tile, w.last_tile - p.tiles_per_segment);
    } else {
      w.first_tile += done;
      w.last_tile = min(w.last_tile, w.first_tile + p.tiles_per_segment);
    }
  }

  // How many segments of this warp's channels have finished.
  template <class M>
  __device__ int32_t* finished(const Lane<M>& t) const {
    static_assert(M::kWarps <= kMaxWarps);
    return p.counters + 1 + range() * M::kWarps + t.warp;
  }

  // Waits until this warp may read what the segment before has stored for it.
  template <class M>
  __device__ void wait(const Lane<M>& t) const {
    if (t.lane == 0) {
      const int32_t* counter = finished<M>(t);
      for (int32_t seen = 0; seen < index();) {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
        if (seen < index()) __nanosleep(500);
      }
    }
    __syncwarp();
  }
  // Lets the next segment start, once all that it reads from this warp has been stored.
  template <class M>
  __device__ void release(const Lane<M>& t) const {
    if (index() + 1 >= p.segments) return;
    __syncwarp();
    if (t.lane == 0) {
      asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(finished<M>(t)), "r"(index() + 1) : "memory");
    }
  }

  // The state between two segments.
  __device__ float* carry(const Block& w) const {
    return p.carry_state + w.split_row(p, w.split) * p.D * p.N;
  }
  template <class M>
  __device__ void receive_carry(const Block& w, const Lane<M>& t, float (&v)[M::P][M::S]) const {
    wait<M>(t);
    load_states<M>(p, w, t, carry(w), v);
  }
  template <class M>
  __device__ void hand_off_carry(const Block& w, const Lane<M>& t, const float (&v)[M::P][M::S]) const {
    if (index() + 1 < p.segments) save_states<M>(p, w, t, carry(w), v);
    release<M>(t);
  }
};

}  // namespace swin_umamba
