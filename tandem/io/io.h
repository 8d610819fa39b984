// All of tandem::io.
#pragma once

#include "tandem/io/dataset.h"
#include "tandem/io/idx.h"
#include "tandem/io/image_grid.h"
#include "tandem/io/labelled_images.h"
#include "tandem/io/loader.h"
#include "tandem/io/mnist.h"
#include "tandem/io/progress.h"
#include "tandem/io/synthetic_digits.h"
