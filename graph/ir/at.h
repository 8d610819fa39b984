// Lists read by id. Ids of values, nodes and dims are int, as -1 stands for none.
#pragma once

#include <cstddef>

namespace tandem::graph {

template <class List> decltype(auto) at(List& list, int id) { return list[static_cast<size_t>(id)]; }
template <class List> int count(const List& list) { return static_cast<int>(list.size()); }

}  // namespace tandem::graph
