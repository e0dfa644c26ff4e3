// gvsl_itk_resample MOVING AFFINE.tfm FIELD.nii.gz FIXED OUT: ITK alone resamples MOVING (float
// NIfTI) onto FIXED's lattice through affine(x + u(x)). None of our code is in it.
#include <itkCompositeTransform.h>
#include <itkDisplacementFieldTransform.h>
#include <itkImage.h>
#include <itkImageFileReader.h>
#include <itkImageFileWriter.h>
#include <itkLinearInterpolateImageFunction.h>
#include <itkNiftiImageIO.h>
#include <itkResampleImageFilter.h>
#include <itkTransformFileReader.h>
#include <itkTxtTransformIOFactory.h>

#include <cstdio>

namespace {

using Image = itk::Image<float, 3>;
using FieldTransform = itk::DisplacementFieldTransform<double, 3>;

template <typename T>
typename T::Pointer ReadImage(const char* path) {
  auto reader = itk::ImageFileReader<T>::New();
  reader->SetImageIO(itk::NiftiImageIO::New());
  reader->SetFileName(path);
  reader->Update();
  return reader->GetOutput();
}

itk::Transform<double, 3, 3>::Pointer ReadAffine(const char* path) {
  itk::ObjectFactoryBase::RegisterFactory(itk::TxtTransformIOFactory::New());
  auto reader = itk::TransformFileReaderTemplate<double>::New();
  reader->SetFileName(path);
  reader->Update();
  return dynamic_cast<itk::Transform<double, 3, 3>*>(
      reader->GetTransformList()->front().GetPointer());
}

void Resample(char** paths) {
  auto displacement = FieldTransform::New();
  displacement->SetDisplacementField(ReadImage<FieldTransform::DisplacementFieldType>(paths[3]));
  auto composite = itk::CompositeTransform<double, 3>::New();
  composite->AddTransform(ReadAffine(paths[2]));
  composite->AddTransform(displacement);  // added last, applied first
  auto filter = itk::ResampleImageFilter<Image, Image>::New();
  filter->SetInput(ReadImage<Image>(paths[1]));
  filter->SetReferenceImage(ReadImage<Image>(paths[4]));
  filter->UseReferenceImageOn();
  filter->SetTransform(composite);
  filter->SetInterpolator(itk::LinearInterpolateImageFunction<Image, double>::New());
  auto writer = itk::ImageFileWriter<Image>::New();
  writer->SetImageIO(itk::NiftiImageIO::New());
  writer->SetInput(filter->GetOutput());
  writer->SetFileName(paths[5]);
  writer->Update();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  try {
    Resample(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gvsl_itk_resample: %s\n", error.what());
    return 1;
  }
  return 0;
}
