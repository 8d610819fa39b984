// Data sets and the loader.
#pragma once

#include "byte_text.h"
#include "cifar10.h"
#include "dataset.h"
#include "labelled_images.h"
#include "loader.h"
#include "mnist.h"
#include "synthetic_digits.h"
#include "synthetic_shapes.h"
#include "synthetic_text.h"
#include "tensor_dataset.h"
