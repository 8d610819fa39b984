// What a kernel notes of the first value that it finds out of range. Pasted into generated CUDA C++ as well; includes nothing.
//
// A kernel can't raise an error, so it leaves a note on the device, and a mark on the host that costs nothing to look at:
// range_notes.cu reads both at the next synchronisation. Of several kernels the first to run is told of, of its values the
// first in row-major order, whoever comes first to the lock.

struct td_range_flag {
  unsigned lock;
  unsigned long long launch;  // 0: nothing was out of range
  unsigned long long key;     // which of the launch's checks, in the upper 16 bits; the place plus one, 0: not known
  long long value;
};
struct td_range_note {
  td_range_flag* flag;
  unsigned* mark;  // memory of the host
  unsigned long long launch;
};

static inline __device__ void td_note_range(td_range_note note, unsigned check, long long place, long long value) {
  volatile td_range_flag* const flag = note.flag;
  const unsigned long long key = (unsigned long long)check << 48 | (unsigned long long)(place + 1);
  for (bool done = false; !done;) {
    const unsigned long long launch = flag->launch;
    if (launch != 0 && (launch != note.launch || flag->key <= key)) return;
    if (atomicCAS(&note.flag->lock, 0u, 1u) != 0u) continue;
    __threadfence();
    if (flag->launch == 0 || (flag->launch == note.launch && key < flag->key)) {
      flag->key = key;
      flag->value = value;
      __threadfence();
      flag->launch = note.launch;
      *(volatile unsigned*)note.mark = 1;
    }
    __threadfence_system();
    atomicExch(&note.flag->lock, 0u);
    done = true;
  }
}
