// The public functions, family by family. Each does nothing but call dispatch; arguments that are tensors or
// numbers come as Arg, which also carries the caller's line. Methods of Tensor are the same.
#pragma once

#include "attention.h"
#include "conv.h"
#include "create.h"
#include "effect.h"
#include "index.h"
#include "linalg.h"
#include "loss.h"
#include "matmul.h"
#include "norm.h"
#include "pointwise.h"
#include "pool.h"
#include "random.h"
#include "reduce.h"
#include "rnn.h"
#include "scan.h"
#include "shape.h"
#include "softmax.h"
#include "sort.h"
