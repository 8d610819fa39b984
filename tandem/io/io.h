// All of tandem::io.
#pragma once

#include "tandem/io/byte_text.h"
#include "tandem/io/cifar10.h"
#include "tandem/io/dataset.h"
#include "tandem/io/idx.h"
#include "tandem/io/image_grid.h"
#include "tandem/io/labelled_images.h"
#include "tandem/io/loader.h"
#include "tandem/io/mnist.h"
#include "tandem/io/progress.h"
#include "tandem/io/safetensors.h"
#include "tandem/io/synthetic_digits.h"
#include "tandem/io/synthetic_shapes.h"
#include "tandem/io/synthetic_text.h"
#include "tandem/io/tensor_dataset.h"
#include "tandem/io/weights.h"
