// Pool: recycles small objects of one type through a list per thread.
#pragma once

#include <cstdlib>
#include <new>
#include <utility>

namespace tandem {

template <class T> class Pool {
 public:
  template <class... Args> static T* create(Args&&... args) {
    FreeList& list = free_list();
    void* memory = list.head;
    if (memory) {
      list.head = *static_cast<void**>(memory);
      --list.count;
    } else {
      memory = ::operator new(sizeof(T));
    }
    return new (memory) T(std::forward<Args>(args)...);
  }

  static void destroy(T* object) {
    object->~T();
    FreeList& list = free_list();
    if (list.closed || list.count >= kMost) {
      ::operator delete(object);
      return;
    }
    *reinterpret_cast<void**>(object) = list.head;
    list.head = object;
    ++list.count;
  }

 private:
  static constexpr int kMost = 4096;
  // Trivially destructible and zero-initialised, so that using it costs no guard; a separate
  // object frees the list when the thread ends.
  struct FreeList {
    void* head;
    int count;
    bool closed;
    bool watched;
  };
  struct Closer {
    ~Closer() {
      list_.closed = true;
      while (list_.head) {
        void* next = *static_cast<void**>(list_.head);
        ::operator delete(list_.head);
        list_.head = next;
      }
    }
  };
  static FreeList& free_list() {
    if (!list_.watched) [[unlikely]] {
      list_.watched = true;
      static thread_local Closer closer;
      (void)closer;
    }
    return list_;
  }
  static constinit inline thread_local FreeList list_{nullptr, 0, false, false};
};

}  // namespace tandem
